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
from noneg.experiments.study import Report
from noneg.files import whole_or_not_at_all

_NAMES = {
    "knn": "kNN",
    "linear": "linear",
    "std_z": "std of `z`",
    "std_h": "std of `h`",
    "effective_rank_z": "rank of `z`",
    "effective_rank_h": "rank of `h`",
    "memory_mb": "peak memory, MB",
    "seconds": "seconds",
}


def write_report(report: Report) -> None:
    """Write `NAME.csv`, `NAME.png` and `NAME.md` into the report's directory."""
    stem = report.directory / report.study.name
    report.directory.mkdir(parents=True, exist_ok=True)
    for ending, text in ((".csv", as_csv(report)), (".md", as_page(report))):
        with whole_or_not_at_all(stem.with_suffix(ending)) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
    if report.results.rows:
        draw(report, stem.with_suffix(".png"))


def as_csv(report: Report) -> str:
    """One row a run: what it was, and its last step's numbers."""
    rows = report.results.rows
    numbers = list(dict.fromkeys(name for row in rows for name in row.numbers))
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["study", "variant", "seed", "settings", "quick", "diverged", *numbers])
    for row in rows:
        cells = [f"{row.numbers[name]:.6g}" if name in row.numbers else "" for name in numbers]
        settings = json.dumps(row.settings, default=str)
        outcome = row.diverged or ""
        writer.writerow(
            [report.study.name, row.variant, row.seed, settings, report.quick, outcome, *cells]
        )
    return text.getvalue()


def draw(report: Report, path: Path) -> None:
    """Draw the study's figure as a small PNG."""
    figure = Figure(figsize=(8, 3.6), dpi=80, layout="constrained")
    # Without a window system, and without pyplot's global state.
    FigureCanvasAgg(figure)
    report.study.draw(report.results, figure)
    if report.quick:
        figure.suptitle("a quick look, which decides nothing", fontsize=8)
    with whole_or_not_at_all(path) as unfinished:
        figure.savefig(unfinished, format="png")


def as_page(report: Report) -> str:
    """The page, in Markdown."""
    study = report.study
    parts = [f"# {study.title}", study.question]
    if report.quick:
        parts.append(
            "**A quick look**: one seed, few and tiny images, a handful of steps. It shows that "
            "the study runs and decides nothing."
        )
    parts.append(_what_was_run(report))
    claims = ["| claim | here | why |", "|---|---|---|"]
    for claim, outcome in zip(study.claims, report.outcomes, strict=True):
        why = outcome.reason
        if outcome.holds is False and claim.likely and not report.quick:
            why += f". Likely: {claim.likely}"
        claims.append(f"| {claim.sentence} | **{outcome.word}** | {why} |")
    parts += ["\n".join(claims), table(report)]
    if report.results.rows:
        parts.append(f"![{study.title}]({study.name}.png)")
    parts.append("What the papers report:\n\n" + "\n".join(f"- {each}" for each in study.papers))
    return "\n\n".join(parts) + "\n"


def summary(report: Report) -> str:
    """The verdicts, for the terminal."""
    lines = [report.study.title]
    for claim, outcome in zip(report.study.claims, report.outcomes, strict=True):
        lines.append(f"  {outcome.word}: {claim.sentence}\n    {outcome.reason}")
    if report.quick:
        lines.append("  (a quick look: it decides nothing)")
    return "\n".join(lines)


def _what_was_run(report: Report) -> str:
    scale = report.scale
    done = len(report.results.rows)
    seeds = len({row.seed for row in report.results.rows})
    sentence = (
        f"Run: `{report.command}`, {done} of {report.planned} runs, up to "
        f"{_counted(seeds, 'seed')} each, on {report.data}: {scale['backbone']}, views of "
        f"{scale['size']} px, batches of {scale['batch_size']}, {scale['epochs']} epochs, unless "
        "a row says otherwise."
    )
    if shared := _settings(report.study.settings):
        sentence += f" Of all variants: {shared}."
    diverged = sum(row.diverged is not None for row in report.results.rows)
    return sentence + (f" {_counted(diverged, 'run')} diverged." if diverged else "")


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


def table(report: Report) -> str:
    """Mean and standard deviation over the seeds, a row for each variant."""
    results, columns = report.results, report.study.columns
    header = ["variant", "n", *(_NAMES.get(name, name.replace("_", " ")) for name in columns)]
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for variant in results.variants:
        lost = sum(row.diverged is not None for row in results.of(variant))
        count = f"{len(results.of(variant))}" + (f" ({lost} diverged)" if lost else "")
        cells = [_cell(results.values(variant, name), name) for name in columns]
        lines.append(f"| {variant} | {count} | {' | '.join(cells)} |")
    start = {name: results.without_training(f"random_{name}") for name in columns}
    for backbone in dict.fromkeys(key for values in start.values() for key in values):
        cells = [_cell(start[name].get(backbone, []), name, spread=False) for name in columns]
        word = f"random start, {backbone}" if backbone else "random start"
        lines.append(f"| {word} | | {' | '.join(cells)} |")
    pixels = {name: results.without_training(f"pixels_{name}") for name in columns}
    if any(pixels.values()):
        cells = [
            _cell(next(iter(pixels[name].values()), []), name, spread=False) for name in columns
        ]
        lines.append(f"| raw pixels | | {' | '.join(cells)} |")
    return "\n".join(lines)


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
