"""Training: loss, terms, learning rate and speed, a small figure each over the same steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, final

import numpy as np

from noneg.records.contents import RunFiles, Series
from noneg.report.canvases import Canvases
from noneg.report.colors import NEUTRAL, H, Z, css_color
from noneg.report.html import Section
from noneg.report.numbers import number

_COLORS = {"h": ("h", H), "z": ("z", Z), "": ("plain", NEUTRAL)}


@final
@dataclass(frozen=True, eq=False)
class Line:
    """One line of a panel.

    Attributes:
        legend: its name; may be empty.
        kind: its class in CSS: "h", "z", "plain", or "run" if each line belongs to another run.
        color: a color of the page.
        x: steps.
        y: NaN if nothing was measured at that step.
    """

    legend: str
    kind: str
    color: str
    x: Series
    y: Series


def training_section(run: RunFiles, canvases: Canvases) -> Section | None:
    """Loss, terms, learning rate and speed."""
    if "loss" not in run.metrics:
        return None
    # A single term equals the loss.
    terms = run.terms if len(run.terms) > 1 else []
    steps = run.metrics["step"]
    panels = [
        panel(canvases, "Loss", [line_of(run, "loss")], identity="loss", kind="wide", height=210)
    ]
    titles = {name: in_words(name) for name in terms}
    titles |= {"learning_rate": "Learning rate", "images_per_second": "Images/s"}
    for name, title in titles.items():
        if name in run.metrics:
            panels.append(panel(canvases, title, [line_of(run, name)], identity=name))
    introduction = (
        f"{number(float(np.nanmax(steps)))} steps. Point at any curve to read all curves at that "
        "step. Drag to zoom all of them; double-click to zoom out."
    )
    body = f'<div class="panels">{"".join(panels)}</div>'
    return Section("training", "Training", introduction, body)


def panel(
    canvases: Canvases,
    title: str,
    lines: Sequence[Line],
    *,
    identity: str,
    over: str = "step",
    hint: str = "",
    kind: str = "",
    height: int = 110,
    **settings: Any,
) -> str:
    """A small figure with its title and a number of each line.

    The number is the last one; while the user points at a figure, it is the one at that step.

    Args:
        canvases: of the page.
        title: plain text.
        lines: all over the same axis.
        identity: begins the names of the lines, which are unique on a page.
        over: the unit of the axis.
        hint: a few words beside the title.
        kind: CSS class of the figure.
        height: in pixels.
        settings: of the Bokeh figure, such as its y_range.
    """
    drawn, readings, spoken = [], [], []
    for line in lines:
        name = f"{identity} {line.legend}"
        drawn.append((name, line.color, line.x, line.y))
        finite = np.flatnonzero(np.isfinite(line.y))
        last = number(float(line.y[finite[-1]])) if finite.size else "no number"
        shown = f'<b data-line="{escape(name)}">{last}</b>'
        if line.kind == "run":
            key = f'<i class="swatch" style="background:{css_color(line.color)}"></i>'
        else:
            key = f"<i>{escape(line.legend)}</i> " if line.legend else ""
        readings.append(
            f'<span class="reading {line.kind}" title="{escape(line.legend)}">{key}{shown}</span>'
        )
        if finite.size:
            first = number(float(line.y[finite[0]]))
            spoken.append(f"{line.legend or title} from {first} to {last}")
    label = f"{title} over {over}s: {'; '.join(spoken) or 'no numbers'}"
    plot = canvases.lines(over, drawn, height=height, **settings)
    small = f'<small class="hint">{escape(hint)}</small>' if hint else ""
    return (
        f'<figure class="panel {kind}"><figcaption><span class="title">'
        f"{escape(title)}{small}</span><span>{''.join(readings)}</span></figcaption>"
        f"{canvases.place(plot, label)}</figure>"
    )


def in_words(name: str) -> str:
    """The name of a column as a title."""
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]


def line_of(run: RunFiles, column: str, embedding: str = "") -> Line:
    """A column of metrics.csv as a line; `embedding` is "h", "z" or empty."""
    kind, color = _COLORS[embedding]
    return Line(embedding, kind, color, run.metrics["step"], run.metrics[column])
