"""Loss, terms, rates and meters over the steps: one small figure each, over one shared axis."""

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

_PLAIN = {"std": "Normalized std"}
_COLORS = {"h": ("h", H), "z": ("z", Z), "": ("plain", NEUTRAL)}


@final
@dataclass(frozen=True, eq=False)
class Line:
    """One line of a panel.

    Attributes:
        legend: what it is called.
        kind: its class in CSS: "h", "z", "plain", or "run" where each line is another run's.
        color: of the line.
        x: steps.
        y: NaN where nothing was measured.
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
    # A single term is the loss itself.
    terms = run.terms if len(run.terms) > 1 else []
    steps = run.metrics["step"]
    panels = [
        panel(canvases, "Loss", [_line(run, "loss")], identity="loss", kind="wide", height=210)
    ]
    panels += [panel(canvases, plain(name), [_line(run, name)], identity=name) for name in terms]
    for name, title in (("learning_rate", "Learning rate"), ("images_per_second", "Images/s")):
        if name in run.metrics:
            panels.append(panel(canvases, title, [_line(run, name)], identity=name))
    introduction = (
        f"Over {number(float(np.nanmax(steps)))} steps. Point anywhere to read all curves at that "
        "step; drag to zoom all of them, double-click for the whole."
    )
    body = f'<div class="panels">{"".join(panels)}</div>'
    return Section("training", "Training", introduction, body)


def meters_section(run: RunFiles, canvases: Canvases) -> Section | None:
    """Every meter of h and z."""
    if not run.meters:
        return None
    known = known_meters()
    panels, blind = [], []
    for meter, columns in run.meters.items():
        about = known.get(meter)
        title = getattr(about, "title", None) or plain(meter)
        better = getattr(about, "better", "neither")
        hint = {"higher": "higher is better", "lower": "lower is better"}.get(better, "")
        lines = [_line(run, column, embedding) for embedding, column in sorted(columns.items())]
        settings: dict[str, Any] = {}
        if meter == "std" or (getattr(about, "low", None), getattr(about, "high", None)) == (0, 1):
            settings["y_range"] = (-0.03, 1.03)
        panels.append(
            panel(canvases, title, lines, identity=meter, hint=hint, kind="meter", **settings)
        )
        if about is not None:
            blind.append(f"<li><b>{escape(title)}.</b> {escape(about.blind)}</li>")
    notes = (
        f"<details><summary>What each meter cannot see</summary><ul>{''.join(blind)}</ul></details>"
        if blind
        else ""
    )
    introduction = (
        'Numbers that need no labels, of <b class="h">h</b>, the representation you keep, and of '
        '<b class="z">z</b>, the projection that the loss sees.'
    )
    body = f'<div class="panels">{"".join(panels)}</div>{notes}'
    return Section("meters", "Meters", introduction, body)


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
    """A small figure with its title, and each line's last number until one points elsewhere."""
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


def plain(name: str) -> str:
    """A column's name as words."""
    words = name.replace("_", " ")
    return _PLAIN.get(name, words[:1].upper() + words[1:])


def known_meters() -> dict[str, Any]:
    """What the diagnostics say of their meters."""
    from noneg import diagnostics

    return dict(getattr(diagnostics, "METERS", {}))


def _line(run: RunFiles, column: str, embedding: str = "") -> Line:
    kind, color = _COLORS[embedding]
    return Line(embedding, kind, color, run.metrics["step"], run.metrics[column])
