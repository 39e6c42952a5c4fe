"""Which factors of the built-in images the embedding kept, beside the untrained encoder's."""

from collections.abc import Sequence
from html import escape

from noneg.evaluation.factors import Readout, best_first
from noneg.report.html import Section
from noneg.report.numbers import count, percent

_KEPT = 0.1
_SEEN = 0.02


def factors_section(readouts: Sequence[Readout]) -> Section:
    """A row for each factor, from chance to all of it; factors at chance are folded away."""
    ordered = best_first(list(readouts))
    lost = [
        each
        for each in ordered
        if each.kept(each.untrained) >= _KEPT
        and each.kept(each.trained) < each.kept(each.untrained) / 2
    ]
    kept = [each for each in ordered if each.kept(each.trained) >= _KEPT and each not in lost]
    unseen = [
        each
        for each in ordered
        if max(each.kept(each.trained), each.kept(each.untrained)) < _SEEN
        and each.factor != "class"
    ]
    sentence = f"Kept: {_listed(kept)}." if kept else "Almost nothing can be read."
    if lost:
        sentence += f" Thrown away in training: {_listed(lost)}."
    body = (
        f'<p class="finding">{sentence}</p>{_table([e for e in ordered if e not in unseen])}'
        + (
            f"<details><summary>{count(len(unseen), 'factor')} at chance, before and after"
            f"</summary>{_table(unseen)}</details>"
            if unseen
            else ""
        )
        + '<p class="note">A linear readout (ridge regression) learns from four fifths of the '
        "images and is tested on the rest. The numbers are the accuracy for classes, and "
        "R\N{SUPERSCRIPT TWO} for numbers and angles. Angles are read by their sine and cosine; "
        "those of textures are doubled first, as stripes look the same after half a turn. "
        "R\N{SUPERSCRIPT TWO} below 0 is worse than always answering the mean. Kept: at least a "
        "tenth of the way from chance to all of it. Thrown away: less than half of what the "
        "untrained encoder gives.</p>"
    )
    introduction = (
        "These images were drawn from known factors, so one can ask which of them the embedding "
        "still holds. Training should throw away what the views change."
    )
    return Section("factors", "What was kept, what was thrown away", introduction, body)


def _table(readouts: Sequence[Readout]) -> str:
    return (
        '<div class="scroll"><table class="factors"><thead><tr>'
        '<th scope="col">factor</th><th scope="col"><span class="axis"><span>chance</span>'
        "<span>all of it</span></span></th>"
        '<th scope="col"><span class="dot trained"></span>this encoder</th>'
        '<th scope="col"><span class="dot untrained"></span>untrained</th>'
        f'<th scope="col">chance</th></tr></thead><tbody>{"".join(map(_row, readouts))}</tbody>'
        "</table></div>"
    )


def _listed(readouts: Sequence[Readout]) -> str:
    names = [f"<b>{escape(each.factor.replace('_', ' '))}</b>" for each in readouts]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _row(each: Readout) -> str:
    trained, untrained = 100 * each.kept(each.trained), 100 * each.kept(each.untrained)
    low, high = sorted((trained, untrained))
    return (
        f'<tr><th scope="row">{escape(each.title)}</th><td><span class="range" aria-hidden="true">'
        f'<span class="between" style="left:{low:.1f}%;width:{high - low:.1f}%"></span>'
        f'<span class="dot untrained" style="left:{untrained:.1f}%"></span>'
        f'<span class="dot trained" style="left:{trained:.1f}%"></span></span></td>'
        f"<td>{_value(each, each.trained)}</td><td>{_value(each, each.untrained)}</td>"
        f"<td>{_value(each, each.chance)}</td></tr>"
    )


def _value(each: Readout, value: float) -> str:
    if each.kind == "class":
        return percent(value)
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}").replace("\N{MINUS SIGN}0.00", "0.00")
