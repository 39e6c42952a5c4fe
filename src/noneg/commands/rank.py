"""`noneg rank`: order runs without labels, and say how reliable the order is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from noneg.diagnostics import METERS
from noneg.errors import NonegError
from noneg.records.contents import EARLIER_KNN, final_meters_in, scores_in
from noneg.records.directory import RunDirectory


@final
@dataclass(frozen=True)
class RankingMeter:
    """A meter that orders runs, and how well it ordered runs with known labels.

    Attributes:
        meter: a key of METERS.
        embedding: "h" or "z".
        sign: 1 if more is better, -1 if less is better.
        spearman: rank correlation with the nearest-neighbor accuracy, within a data set.
        low: lower end of the 95 % bootstrap interval.
        high: upper end.
        runs: number of these runs.
        held_out: the same correlation on runs that were not used to choose the meter.
        held_out_runs: number of those runs.
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


RANKING_METER: Final = RankingMeter("view_retrieval", "h", 1, 0.86, 0.78, 0.92, 40, 0.67, 300)
"""The best predictor of accuracy over the runs of docs/diagnostics.md."""

_FAILED = ("complete collapse", "dimensional collapse", "exploding scale")


@final
@dataclass(frozen=True)
class Ranked:
    """A run among others.

    Attributes:
        run: its directory.
        method: its method.
        data: what it was trained on.
        value: of the ranking meter; None if it was not measured.
        state: of its verdict.
        knn: accuracy in [0, 1], if there were labels; the order does not depend on it.
        whitened: whether that is the accuracy of whitened features; earlier versions did not
            whiten them.
    """

    run: Path
    method: str
    data: str
    value: float | None
    state: str
    knn: float | None
    whitened: bool = True


def rank_runs(runs: Sequence[Path], by: RankingMeter = RANKING_METER) -> list[Ranked]:
    """Order runs from best to worst by a meter of their embeddings; failed runs come last.

    Args:
        runs: directories of finished runs, with their meters.json.
        by: the meter that decides.

    Raises:
        NonegError: a run has no meters, or cannot be read.
    """
    ranked = [_read(run, by) for run in runs]

    def order(each: Ranked) -> tuple[bool, bool, float]:
        value = each.value
        return (
            each.state in _FAILED,
            value is None,
            0.0 if value is None else -by.sign * value,
        )

    return sorted(ranked, key=order)


def format_ranking(ranked: Sequence[Ranked], by: RankingMeter = RANKING_METER) -> str:
    """A line for each run, and how reliable the order is."""
    title = f"{METERS[by.meter].title} of {by.embedding}"
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
    return "\n".join([*lines, "", *trust(ranked, by)])


def trust(ranked: Sequence[Ranked], by: RankingMeter = RANKING_METER) -> list[str]:
    """Sentences on how reliable the order of these runs is."""
    sentences = [
        f"Over {by.runs} short runs on two data sets, sound and broken, this meter's "
        "rank correlation with the accuracy of nearest neighbors was "
        f"{by.sign * by.spearman:.2f} (95 % interval {by.low:.2f} to "
        f"{by.high:.2f}), and {by.sign * by.held_out:.2f} over "
        f"{by.held_out_runs} other runs, which were not used to choose it; see "
        "docs/diagnostics.md."
    ]
    if len({each.data for each in ranked}) > 1:
        sentences.append(
            "These runs were trained on different images: the order across data sets means nothing."
        )
    if len({each.method for each in ranked}) > 1:
        sentences.append(
            "They differ in method: compare runs of one method first, and methods with care."
        )
    if any(each.value is None for each in ranked):
        sentences.append("Runs without this meter come last: noneg evaluate RUN DATA measures it.")
    if len({each.whitened for each in ranked if each.knn is not None}) > 1:
        sentences.append(EARLIER_KNN)
    return sentences


def _read(path: Path, by: RankingMeter) -> Ranked:
    run = RunDirectory(path)
    config, meters = run.read_config(), run.read_meters()
    if config is None:
        raise NonegError(f"{path} is not a run: it has no {run.config_file.name}")
    if meters is None:
        raise NonegError(
            f"{path} has no meters.json, so it is not finished: finish it with "
            f"noneg train --resume {path}"
        )
    verdict = run.read_verdict() or {}
    scored = scores_in(run.read_scores() or {}).get("trained", {})
    return Ranked(
        run=path,
        method=str(config.get("method", "?")),
        data=str(config.get("data", "?")),
        value=final_meters_in(meters).trained.get(by.embedding, {}).get(by.meter),
        state=str(verdict.get("state", "?")),
        knn=scored.get("knn"),
        whitened="knn_raw" in scored,
    )


def run(*, runs: Sequence[Path]) -> None:
    """Print the runs, best first.

    Raises:
        NonegError: a directory does not hold a finished run.
    """
    print(format_ranking(rank_runs(runs)))
