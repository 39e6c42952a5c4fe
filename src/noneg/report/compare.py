"""Several runs on one page: verdicts, scores, curves in one figure, and differing settings."""

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from noneg.records.contents import EARLIER_KNN, RunFiles, read_run
from noneg.report.canvases import Canvases
from noneg.report.colors import CATEGORIES, css_color
from noneg.report.html import Section, document
from noneg.report.numbers import count, duration, number, percent
from noneg.report.sections.about import flat
from noneg.report.sections.curves import Line, panel
from noneg.report.sections.meters import meter_title
from noneg.report.sections.verdict import badge, median_speed


def several_runs(directories: Sequence[Path]) -> str:
    """The page that compares runs, as HTML.

    Raises:
        NonegError: one of the directories holds no run.
    """
    runs = [read_run(directory) for directory in directories]
    names = _distinct(runs)
    canvases = Canvases()
    sections = [
        Section("runs", "Side by side", _introduction(runs), _table(runs, names)),
        _curves(runs, names, canvases),
        _differences(runs, names),
    ]
    top = (
        '<header><p class="brand">noneg report</p>'
        f"<h1>{count(len(runs), 'run')} compared</h1>"
        f'<p class="subtitle">{escape(", ".join(names))}</p></header>'
    )
    shown = [section for section in sections if section is not None]
    return document("Comparison", top, shown, scripts=canvases.scripts())


def _distinct(runs: Sequence[RunFiles]) -> list[str]:
    """The names of the runs; the whole path if two have the same name."""
    names = [run.name for run in runs]
    return [
        name if names.count(name) == 1 else str(run.directory)
        for name, run in zip(names, runs, strict=True)
    ]


def _color(position: int) -> str:
    return CATEGORIES[position % len(CATEGORIES)]


def _introduction(runs: Sequence[RunFiles]) -> str:
    data = {str(run.settings.get("data")) for run in runs}
    if len(data) > 1:
        return "The runs were trained on different images: do not compare their scores and meters."
    trained = [row for run in runs if (row := run.scores.get("trained")) is not None]
    raw = [row for row in trained if "knn_raw" not in row]
    return (
        "The best score of each column is bold. Compare meters only between runs whose embeddings "
        "have the same width."
    ) + (f" {EARLIER_KNN}" if 0 < len(raw) < len(trained) else "")


def _table(runs: Sequence[RunFiles], names: Sequence[str]) -> str:
    columns: list[tuple[str, list[float | None], Callable[[float], str], bool]] = [
        ("kNN", [run.scores.get("trained", {}).get("knn") for run in runs], percent, True),
        ("linear", [run.scores.get("trained", {}).get("linear") for run in runs], percent, True),
        ("std of h", [run.last("std_h") for run in runs], number, False),
        ("eff. rank of h", [run.last("effective_rank_h") for run in runs], number, False),
        ("images/s", [median_speed(run) for run in runs], _whole, False),
        ("training", [run.seconds for run in runs], duration, False),
    ]
    columns = [column for column in columns if any(value is not None for value in column[1])]
    head = "".join(f'<th scope="col" class="number">{title}</th>' for title, *_ in columns)
    rows = []
    for position, (run, name) in enumerate(zip(runs, names, strict=True)):
        cells = []
        for _, values, form, is_score in columns:
            value = values[position]
            known = [each for each in values if each is not None]
            best = is_score and value is not None and len(known) > 1 and value == max(known)
            shown = "\N{EN DASH}" if value is None else form(value)
            cells.append(f'<td class="number{" best" if best else ""}">{shown}</td>')
        color = css_color(_color(position))
        rows.append(
            f'<tr><th scope="row"><span class="swatch" style="background:{color}">'
            f"</span>{escape(name)}</th><td>{badge(run)}</td>"
            f"<td>{escape(str(run.settings.get('method', '')))}</td>{''.join(cells)}</tr>"
        )
    return (
        '<div class="scroll"><table class="compare"><thead><tr><th scope="col">run</th>'
        f'<th scope="col">verdict</th><th scope="col">method</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _whole(value: float) -> str:
    return number(float(round(value)))


def _curves(runs: Sequence[RunFiles], names: Sequence[str], canvases: Canvases) -> Section | None:
    """The losses, in a figure for each method as their scales differ, and all meters of h."""
    wanted: dict[str, dict[int, str]] = {}
    for position, run in enumerate(runs):
        if "loss" in run.metrics:
            title = f"Loss of {run.settings.get('method', 'an unknown method')}"
            wanted.setdefault(title, {})[position] = "loss"
    for position, run in enumerate(runs):
        for meter, columns in run.meters.items():
            if "h" in columns:
                title = f"{meter_title(meter)} of h"
                wanted.setdefault(title, {})[position] = columns["h"]
    panels = []
    for title, found in wanted.items():
        lines = [
            Line(
                names[each],
                "run",
                _color(each),
                runs[each].metrics["step"],
                runs[each].metrics[column],
            )
            for each, column in found.items()
        ]
        panels.append(panel(canvases, title, lines, identity=title, height=180))
    if not panels:
        return None
    introduction = (
        "Over the steps, in the colors of the table. Point at any curve to read all of them."
    )
    body = f'<div class="halves">{"".join(panels)}</div>'
    return Section("curves", "Curves", introduction, body)


def _differences(runs: Sequence[RunFiles], names: Sequence[str]) -> Section:
    settings = [flat(run.settings) for run in runs]
    keys = list(dict.fromkeys(key for each in settings for key in each))
    differing = [key for key in keys if len({repr(each.get(key)) for each in settings}) > 1]
    if not differing:
        return Section("settings", "Settings", "", '<p class="nothing">Equal in all runs.</p>')
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    rows = "".join(
        f'<tr><th scope="row">{escape(key)}</th>'
        + "".join(f"<td>{_shown(each, key)}</td>" for each in settings)
        + "</tr>"
        for key in differing
    )
    same = len(keys) - len(differing)
    return Section(
        "settings",
        "Settings that differ",
        f"{count(same, 'other setting')} {'is' if same == 1 else 'are'} equal in all runs.",
        f'<div class="scroll"><table class="compare"><thead><tr><th scope="col">setting</th>{head}'
        f"</tr></thead><tbody>{rows}</tbody></table></div>",
    )


def _shown(settings: dict[str, Any], key: str) -> str:
    return escape(str(settings[key])) if key in settings else "\N{EN DASH}"
