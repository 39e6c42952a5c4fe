"""Label-free meters of h and z: at the end beside the untrained network's, and over the steps."""

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
    embeddings = [name for name in ("h", "z") if name in final.trained or name in final.untrained]
    rows = []
    for meter, about in METERS.items():
        pairs = [
            (final.trained.get(name, {}).get(meter), final.untrained.get(name, {}).get(meter))
            for name in embeddings
        ]
        if any(value is not None for pair in pairs for value in pair):
            cells = "".join(_cells(about, trained, untrained) for trained, untrained in pairs)
            rows.append(
                f'<tr><th scope="row">{escape(about.title)}</th>{cells}'
                f"<td>{_BETTER[about.better]}</td></tr>"
            )
    if not rows:
        return ""
    head = "".join(
        f'<th scope="col" class="number"><b class="{name}">{name}</b> {network}</th>'
        for name in embeddings
        for network in ("trained", "untrained")
    )
    measured = "" if final.images is None else f" of {count(final.images, 'image')}"
    return (
        '<div class="block"><h3>At the end of the run, beside the network before training</h3>'
        f'<p class="note">Measured on random views{measured}. The better of each pair is bold.</p>'
        '<div class="scroll"><table class="compare final"><thead><tr><th scope="col">meter</th>'
        f"{head}<th></th></tr></thead><tbody>{''.join(rows)}</tbody></table></div></div>"
    )


def _cells(about: Meter, trained: float | None, untrained: float | None) -> str:
    better = None
    if trained is not None and untrained is not None and trained != untrained:
        higher = about.better == "higher"
        better = None if about.better == "neither" else (max if higher else min)(trained, untrained)
    return "".join(
        f'<td class="number{" best" if value is not None and value == better else ""}">'
        f"{_NOTHING if value is None else number(value)}</td>"
        for value in (trained, untrained)
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
