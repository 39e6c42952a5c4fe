"""The top of the page: did the training work?"""

from collections.abc import Mapping
from html import escape

import numpy as np

from noneg.records.contents import RunFiles
from noneg.report.colors import STATES
from noneg.report.numbers import duration, number, percent

_FEATURES = {
    "trained": "this encoder",
    "start": "the start",
    "teacher": "the teacher",
    "untrained": "untrained",
    "pixels": "raw pixels",
    "patches": "patches",
}
_BASELINES = {
    "start": "the start",
    "teacher": "the teacher",
    "untrained": "the untrained encoder",
    "pixels": "raw pixels",
    "patches": "patches with k-means",
}


def verdict_html(run: RunFiles) -> str:
    """Badge, sentence, causes and history."""
    state = str(run.verdict.get("state", ""))
    sentence = str(run.verdict.get("sentence", ""))
    if not state:
        kind, sign, state = "open", "\N{EN DASH}", "no verdict"
        sentence = "This run recorded no verdict: judge it by the meters below."
    else:
        kind, sign = STATES.get(state, ("open", "\N{EN DASH}"))
        if not sentence and state == "too early to say":
            sentence = "There were too few steps for a verdict."
    causes = run.verdict.get("causes")
    listed = "".join(f"<li>{escape(str(cause))}</li>" for cause in causes or ())
    return (
        f'<div class="verdict {kind}"><p class="badge"><span aria-hidden="true">{sign}</span> '
        f'{escape(_capitalized(state))}</p><p class="sentence">{escape(sentence)}</p>'
        + (f'<ul class="causes">{listed}</ul>' if listed else "")
        + _against_start(run)
        + _history(run)
        + "</div>"
    )


def _against_start(run: RunFiles) -> str:
    """What training did to the known weights that it began with."""
    gain = run.verdict.get("against_start")
    if not isinstance(gain, Mapping):
        return _against_start_without_labels(run)
    outcome = str(gain.get("outcome", ""))
    numbers = [gain.get(name) for name in ("difference", "error")]
    if not all(isinstance(each, int | float) for each in numbers):
        return ""
    points, error = (100 * float(each) for each in numbers if isinstance(each, int | float))
    return (
        f'<p class="sentence">Against the weights that it began with: <b>{escape(outcome)}</b> '
        f"({points:+.1f} points on average of both probes, standard error {error:.1f}).</p>"
    )


def _against_start_without_labels(run: RunFiles) -> str:
    gain = run.verdict.get("against_start_without_labels")
    if not isinstance(gain, Mapping):
        return ""
    outcome = str(gain.get("outcome", ""))
    numbers = [gain.get(name) for name in ("found", "found_before")]
    if not all(isinstance(each, int | float) for each in numbers):
        return ""
    found, before = (float(each) for each in numbers if isinstance(each, int | float))
    said = outcome if outcome == "no difference" else f"probably {outcome}"
    return (
        f'<p class="sentence">Against the weights that it began with: <b>{escape(said)}</b>. A '
        f"view's image is found in {found:.1%} of cases; by the start in {before:.1%}.</p>"
    )


def badge(run: RunFiles) -> str:
    """The state of the verdict, as a badge."""
    state = str(run.verdict.get("state", "")) or "no verdict"
    kind, sign = STATES.get(state, ("open", "\N{EN DASH}"))
    return (
        f'<span class="badge {kind}"><span aria-hidden="true">{sign}</span> '
        f"{escape(_capitalized(state))}</span>"
    )


def _capitalized(state: str) -> str:
    return state[:1].upper() + state[1:]


def _history(run: RunFiles) -> str:
    """The numbers behind the verdict, and the verdicts before it."""
    history = run.verdict.get("history")
    history = history if isinstance(history, list) else []
    numbers = run.verdict.get("numbers")
    numbers = numbers if isinstance(numbers, Mapping) else {}
    shown = ", ".join(
        f"{escape(str(name).replace('_', ' '))} {number(float(value))}"
        for name, value in numbers.items()
        if isinstance(value, int | float)
    )
    if len(history) < 2 and not shown:
        return ""
    rows = []
    for entry in history:
        if isinstance(entry, Mapping):
            kind, sign = STATES.get(str(entry.get("state")), ("open", "\N{EN DASH}"))
            rows.append(
                f'<li><span class="when">step {escape(str(entry.get("step", "?")))}</span> '
                f'<b class="{kind}">{sign} {escape(str(entry.get("state", "")))}</b> '
                f"{escape(str(entry.get('sentence', '')))}</li>"
            )
    return (
        "<details><summary>The numbers behind it, and earlier verdicts</summary>"
        f'<p class="note">{shown}</p>'
        f'<ol class="history">{"".join(rows)}</ol></details>'
    )


def scores_html(run: RunFiles) -> str:
    """Accuracies as bars, beside those of the baselines."""
    if not run.scores:
        return ""
    blocks = []
    for probe, title in (("knn", "Nearest neighbors"), ("linear", "Linear probe")):
        rows = [
            f'<div class="bar {features}"><span>{_FEATURES[features]}</span>'
            f'<span class="track"><span style="width:{100 * score[probe]:.1f}%"></span></span>'
            f"<b>{percent(score[probe])}</b></div>"
            for features in _FEATURES
            if (score := run.scores.get(features)) is not None and probe in score
        ]
        if rows:
            blocks.append(f"<h3>{title}</h3>{''.join(rows)}")
    return (
        f'<div class="scores" role="group" aria-label="Accuracy on held-out labeled images">'
        f"{''.join(blocks)}{_margin(run)}</div>"
    )


def _margin(run: RunFiles) -> str:
    """How far the nearest-neighbor accuracy is above each baseline, in points."""
    trained = run.scores.get("trained", {}).get("knn")
    if trained is None:
        return ""
    parts = []
    for features, name in _BASELINES.items():
        if (other := run.scores.get(features, {}).get("knn")) is not None:
            points = 100 * (trained - other)
            side = "above" if points >= 0 else "below"
            parts.append(f"{abs(points):.1f} points {side} {name}")
    if not parts:
        return ""
    listed = " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
    return f'<p class="note">Accuracy on held-out images. Nearest neighbors are {listed}.</p>'


def facts_html(run: RunFiles, images: int | None) -> str:
    """The numbers that people ask for first."""
    facts: list[tuple[str, str]] = []
    if images is not None:
        facts.append(("images", f"{images:,}"))
    if (epochs := run.settings.get("epochs")) is not None:
        facts.append(("epochs", escape(str(epochs))))
    elif (steps := run.settings.get("steps")) is not None:
        facts.append(("steps", escape(f"{steps:,}" if isinstance(steps, int) else str(steps))))
    if run.seconds is not None:
        facts.append(("training", duration(run.seconds)))
    if (speed := median_speed(run)) is not None:
        facts.append(("images/s", number(float(round(speed)))))
    if (loss := run.last("loss")) is not None:
        facts.append(("last loss", number(loss)))
    if (std := run.last("std_h")) is not None:
        facts.append(("std of h", number(std)))
    if (rank := run.last("effective_rank_h")) is not None:
        facts.append(("effective rank of&nbsp;h", number(rank)))
    items = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{items}</dl>' if items else ""


def median_speed(run: RunFiles) -> float | None:
    """Images per second, the median over the rows."""
    speeds = run.metrics.get("images_per_second")
    if speeds is None or not np.isfinite(speeds).any():
        return None
    return float(np.nanmedian(speeds))
