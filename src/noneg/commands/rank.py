"""`noneg rank`: runs in the order of their worth, without labels, and how far to trust it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from noneg.diagnostics import METERS
from noneg.errors import NonegError
from noneg.records.directory import RunDirectory


@final
@dataclass(frozen=True)
class Predictor:
    """A meter, and how well it ordered runs whose labels were known.

    Attributes:
        meter: a key of METERS.
        embedding: "h" or "z".
        sign: 1 where more is better, -1 where less is.
        spearman: rank correlation with the accuracy of the nearest neighbors, within a data set.
        low: lower end of the 95 % bootstrap interval.
        high: upper end.
        runs: how many there were.
        held_out: the same correlation on runs that it was not chosen on.
        held_out_runs: how many of those there were.
    """

    meter: str
    embedding: str
    sign: int
    spearman: float
    low: float
    high: float
    runs: int
    held_out: float
    held_out_runs: int


PREDICTOR: Final = Predictor("view_retrieval", "h", 1, 0.86, 0.78, 0.92, 40, 0.67, 300)
"""The one that predicted best over the runs of docs/diagnostics.md."""

_FAILED = ("complete collapse", "dimensional collapse", "exploding scale")


@final
@dataclass(frozen=True)
class Ranked:
    """A run among others.

    Attributes:
        run: its directory.
        method: its method.
        data: what it was trained on.
        value: of the predictor; None where it was not measured.
        state: of its verdict.
        knn: accuracy where labels were there, in [0, 1]; it did not decide the order.
    """

    run: Path
    method: str
    data: str
    value: float | None
    state: str
    knn: float | None


def rank_runs(runs: Sequence[Path], predictor: Predictor = PREDICTOR) -> list[Ranked]:
    """Runs from best to worst by a meter of their embeddings; those that failed come last.

    Args:
        runs: directories of finished runs, with their meters.json.
        predictor: the meter that decides.

    Raises:
        NonegError: a run has no meters, or cannot be read.
    """
    ranked = [_read(run, predictor) for run in runs]

    def order(each: Ranked) -> tuple[bool, bool, float]:
        value = each.value
        return (
            each.state in _FAILED,
            value is None,
            0.0 if value is None else -predictor.sign * value,
        )

    return sorted(ranked, key=order)


def format_ranking(ranked: Sequence[Ranked], predictor: Predictor = PREDICTOR) -> str:
    """A line for each run, and what the order is worth."""
    title = f"{METERS[predictor.meter].title} of {predictor.embedding}"
    rows = [("", "run", "method", title, "verdict", "kNN")]
    rows += [
        (
            f"{place}.",
            str(each.run),
            each.method,
            "-" if each.value is None else f"{each.value:.4g}",
            each.state,
            "-" if each.knn is None else f"{each.knn:.1%}",
        )
        for place, each in enumerate(ranked, start=1)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, "", *trust(ranked, predictor)])


def trust(ranked: Sequence[Ranked], predictor: Predictor = PREDICTOR) -> list[str]:
    """Sentences on how far to trust the order of these runs."""
    sentences = [
        f"Over {predictor.runs} short runs on two data sets, sound and broken, this meter's rank "
        f"correlation with the accuracy of nearest neighbors was "
        f"{predictor.sign * predictor.spearman:.2f} (95 % interval {predictor.low:.2f} to "
        f"{predictor.high:.2f}), and {predictor.sign * predictor.held_out:.2f} over "
        f"{predictor.held_out_runs} others, on which it was not chosen; see docs/diagnostics.md."
    ]
    if len({each.data for each in ranked}) > 1:
        sentences.append(
            "These runs were trained on different images: the order across them means nothing."
        )
    if len({each.method for each in ranked}) > 1:
        sentences.append(
            "They differ in method: compare within a method first, and between methods with care."
        )
    if any(each.value is None for each in ranked):
        sentences.append("Runs without that meter come last: noneg evaluate RUN DATA measures it.")
    return sentences


def _read(path: Path, predictor: Predictor) -> Ranked:
    run = RunDirectory(path)
    config, meters = run.read_config(), run.read_meters()
    if config is None:
        raise NonegError(f"{path} is not a run: it has no {run.config_file.name}")
    if meters is None:
        raise NonegError(
            f"{path} has no meters.json, which a finished run has: finish it with noneg train "
            f"--resume {path}"
        )
    verdict, scores = run.read_verdict() or {}, run.read_scores() or {}
    return Ranked(
        run=path,
        method=str(config.get("method", "?")),
        data=str(config.get("data", "?")),
        value=meters.get("trained", {}).get(predictor.embedding, {}).get(predictor.meter),
        state=str(verdict.get("state", "?")),
        knn=scores.get("trained", {}).get("knn"),
    )


def run(*, runs: Sequence[Path]) -> None:
    """Print the runs, best first.

    Raises:
        NonegError: a directory is not a finished run's.
    """
    print(format_ranking(rank_runs(runs)))
