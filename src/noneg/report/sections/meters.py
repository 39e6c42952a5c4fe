"""Label-free meters of h and z: at the end beside the untrained network's, and over the steps."""

from collections.abc import Sequence
from html import escape
from typing import Any

from noneg.diagnostics import METERS, Meter
from noneg.records.contents import RunFiles
from noneg.report.canvases import Canvases
from noneg.report.html import Section
from noneg.report.numbers import count, number
from noneg.report.sections.curves import in_words, line_of, panel

_BETTER = {"higher": "higher is better", "lower": "lower is better", "neither": ""}
_NOTHING = "\N{EN DASH}"


def meters_section(run: RunFiles, canvases: Canvases) -> Section | None:
    """A table of the meters at the end, a figure for each meter, and what each cannot see."""
    table = _at_the_end(run)
    panels = [_over_steps(run, meter, canvases) for meter in run.meters]
    if not table and not panels:
        return None
    introduction = (
        'Numbers that need no labels: of <b class="h">h</b>, the representation that you keep, and '
        'of <b class="z">z</b>, the projection that the loss sees.'
    )
    curves = f'<div class="panels">{"".join(panels)}</div>' if panels else ""
    return Section("meters", "Meters", introduction, table + curves + _blind_spots(run))


def meter_title(meter: str) -> str:
    """The name of a meter for people."""
    return METERS[meter].title if meter in METERS else in_words(meter)


def _at_the_end(run: RunFiles) -> str:
    """The table of meters.json; empty without it."""
    final = run.final_meters
    networks = {"trained": final.trained, "start": final.start, "untrained": final.untrained}
    # An encoder that the run began with has no z.
    columns = {
        name: {network: meters[name] for network, meters in networks.items() if name in meters}
        for name in ("h", "z")
    }
    rows = []
    for meter, about in METERS.items():
        groups = [
            [meters.get(meter) for meters in by_network.values()] for by_network in columns.values()
        ]
        if any(value is not None for group in groups for value in group):
            cells = "".join(_cells(about, group) for group in groups)
            rows.append(
                f'<tr><th scope="row">{escape(about.title)}</th>{cells}'
                f"<td>{_BETTER[about.better]}</td></tr>"
            )
    if not rows:
        return ""
    head = "".join(
        f'<th scope="col" class="number"><b class="{name}">{name}</b> {network}</th>'
        for name, by_network in columns.items()
        for network in by_network
    )
    measured = "" if final.images is None else f" of {count(final.images, 'image')}"
    return (
        '<div class="block"><h3>At the end of the run, beside the network before training</h3>'
        f'<p class="note">Measured on random views{measured}. The best of each group is bold.</p>'
        '<div class="scroll"><table class="compare final"><thead><tr><th scope="col">meter</th>'
        f"{head}<th></th></tr></thead><tbody>{''.join(rows)}</tbody></table></div></div>"
    )


def _cells(about: Meter, values: Sequence[float | None]) -> str:
    """A cell for each network; the best one is bold, if they differ."""
    measured = [value for value in values if value is not None]
    best = None
    if len(set(measured)) > 1 and about.better != "neither":
        best = max(measured) if about.better == "higher" else min(measured)
    return "".join(
        f'<td class="number{" best" if value is not None and value == best else ""}">'
        f"{_NOTHING if value is None else number(value)}</td>"
        for value in values
    )


def _over_steps(run: RunFiles, meter: str, canvases: Canvases) -> str:
    about = METERS.get(meter)
    settings: dict[str, Any] = {}
    if about is not None and (about.low, about.high) == (0, 1):
        settings["y_range"] = (-0.03, 1.03)
    return panel(
        canvases,
        meter_title(meter),
        [line_of(run, column, name) for name, column in sorted(run.meters[meter].items())],
        identity=meter,
        hint=_BETTER[about.better] if about is not None else "",
        kind="meter",
        **settings,
    )


def _blind_spots(run: RunFiles) -> str:
    """What each meter of the section cannot see."""
    final = run.final_meters
    shown = set(run.meters).union(*final.trained.values(), *final.untrained.values())
    items = "".join(
        f"<li><b>{escape(about.title)}.</b> {escape(about.blind)}</li>"
        for meter, about in METERS.items()
        if meter in shown
    )
    summary = "<summary>What each meter cannot see</summary>"
    return f"<details>{summary}<ul>{items}</ul></details>" if items else ""
