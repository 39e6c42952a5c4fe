"""A study's CSV, figure and page, all made from its results."""

import csv
import json
import statistics
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from noneg.experiments.results import ACCURACIES
from noneg.experiments.study import JudgedStudy
from noneg.files import all_or_none, write_text
from noneg.training.config import LENGTHS

_NAMES = {
    "knn": "kNN",
    "linear": "linear",
    "std_z": "std of `z`",
    "std_h": "std of `h`",
    "effective_rank_z": "rank of `z`",
    "effective_rank_h": "rank of `h`",
    "memory_mb": "peak memory, MB",
    "seconds": "seconds",
    "step": "steps",
    "cpu_seconds": "CPU seconds",
}


def write_study_page(judged: JudgedStudy) -> None:
    """Write `NAME.csv`, `NAME.md` and, if a run is finished, `NAME.png`.

    Raises:
        NonegError: they cannot be written.
    """
    with all_or_none(judged.directory) as unfinished:
        stem = unfinished / judged.study.name
        for ending, text in ((".csv", as_csv(judged)), (".md", as_markdown(judged))):
            write_text(stem.with_suffix(ending), text)
        if judged.results.runs:
            draw_figure(judged, stem.with_suffix(".png"))


def as_csv(judged: JudgedStudy) -> str:
    """One row per run: its settings, and the numbers of its last step."""
    runs = judged.results.runs
    numbers = list(dict.fromkeys(name for run in runs for name in run.numbers))
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["study", "variant", "seed", "settings", "quick", "diverged", *numbers])
    for run in runs:
        cells = [f"{run.numbers[name]:.6g}" if name in run.numbers else "" for name in numbers]
        settings = json.dumps(run.settings, default=str)
        what = [judged.study.name, run.variant, run.seed, settings, judged.quick]
        writer.writerow([*what, run.diverged or "", *cells])
    return text.getvalue()


def as_markdown(judged: JudgedStudy) -> str:
    """The page."""
    study = judged.study
    parts = [f"# {study.title}", study.question]
    if judged.quick:
        parts.append(
            "**A quick run**: one seed, few and small images, few steps. It shows that the study "
            "runs; it decides nothing."
        )
    parts += [_what_was_run(judged), _claims_table(judged), results_table(judged)]
    if judged.results.runs:
        parts.append(f"![{study.title}]({study.name}.png)")
    parts.append("What the papers report:\n\n" + "\n".join(f"- {each}" for each in study.papers))
    return "\n\n".join(parts) + "\n"


def as_terminal_text(judged: JudgedStudy) -> str:
    """The outcomes, for the terminal."""
    lines = [judged.study.title]
    for claim, outcome in zip(judged.study.claims, judged.outcomes, strict=True):
        lines.append(f"  {outcome.word}: {claim.sentence}\n    {outcome.reason}")
    if judged.quick:
        lines.append("  (a quick run: it decides nothing)")
    return "\n".join(lines)


def draw_figure(judged: JudgedStudy, path: Path) -> None:
    """Draw the study's figure as a small PNG."""
    figure = Figure(figsize=(8, 3.6), dpi=80, layout="constrained")
    # Without a window system, and without pyplot's global state.
    FigureCanvasAgg(figure)
    judged.study.draw(judged.results, figure)
    if judged.quick:
        figure.suptitle("a quick run, which decides nothing", fontsize=8)
    figure.savefig(path, format="png")


def _what_was_run(judged: JudgedStudy) -> str:
    shared = judged.shared
    runs = judged.results.runs
    seeds = len({run.seed for run in runs})
    sentences = [
        f"Command: `{judged.command_line}`.",
        f"{len(runs)} of {judged.planned} runs, up to {_counted(seeds, 'seed')} per variant, on "
        f"{judged.data}.",
        f"Unless a row says otherwise: {shared['backbone']}, views of {shared['size']} px, batches "
        f"of {shared['batch_size']}, {_length(shared)}.",
    ]
    others = {name: of for name, of in judged.study.settings.items() if name not in LENGTHS}
    if settings := _settings(others):
        sentences.append(f"All variants have {settings}.")
    if diverged := sum(run.diverged is not None for run in runs):
        sentences.append(f"{_counted(diverged, 'run')} diverged.")
    return " ".join(sentences)


def _length(shared: Mapping[str, Any]) -> str:
    return next(f"{shared[name]} {name}" for name in LENGTHS if name in shared)


def _settings(settings: Mapping[str, Any], prefix: str = "") -> str:
    parts = [
        _settings(value, f"{prefix}{name}.")
        if isinstance(value, Mapping)
        else f"`{prefix}{name}={value}`"
        for name, value in settings.items()
    ]
    return ", ".join(filter(None, parts))


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _claims_table(judged: JudgedStudy) -> str:
    lines = ["| claim | outcome | why |", "| --- | --- | --- |"]
    for claim, outcome in zip(judged.study.claims, judged.outcomes, strict=True):
        why = outcome.reason
        if outcome.holds is False and claim.likely and not judged.quick:
            why += f". Likely reason: {claim.likely}"
        lines.append(f"| {claim.sentence} | **{outcome.word}** | {why} |")
    return "\n".join(lines)


def results_table(judged: JudgedStudy) -> str:
    """Mean and standard deviation over the seeds, one row per variant; then the baselines."""
    results, columns = judged.results, judged.study.columns
    rows = [["variant", "n", *(_NAMES.get(name, name.replace("_", " ")) for name in columns)]]
    rows.append(["---"] * len(rows[0]))
    for variant in results.variants:
        lost = sum(run.diverged is not None for run in results.of(variant))
        count = f"{len(results.of(variant))}" + (f" ({lost} diverged)" if lost else "")
        cells = [_cell(results.values(variant, name), name) for name in columns]
        rows.append([variant, count, *cells])
    untrained = {name: results.baseline(f"untrained_{name}") for name in columns}
    for backbone in dict.fromkeys(key for values in untrained.values() for key in values):
        cells = [_cell(untrained[name].get(backbone, []), name, spread=False) for name in columns]
        rows.append([f"untrained, {backbone}" if backbone else "untrained", "", *cells])
    pixels = {name: results.baseline(f"pixels_{name}") for name in columns}
    if any(pixels.values()):
        # They are the same for every backbone.
        first = {name: next(iter(values.values()), []) for name, values in pixels.items()}
        cells = [_cell(values, name, spread=False) for name, values in first.items()]
        rows.append(["raw pixels", "", *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(values: list[float], name: str, *, spread: bool = True) -> str:
    if not values:
        return ""
    factor, digits = (100, 1) if name in ACCURACIES else (1, 2)
    mean = factor * statistics.fmean(values)
    if digits == 2 and abs(mean) >= 100:
        digits = 0
    if digits == 2 and 0 < abs(mean) < 0.01:
        return f"{mean:.1e}"
    shown = f"{mean:.{digits}f}"
    if len(values) == 1 or not spread:
        return shown
    return f"{shown} ± {factor * statistics.stdev(values):.{digits}f}"
