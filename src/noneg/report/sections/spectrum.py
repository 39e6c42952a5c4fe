"""The spectra of h and z, from the first to the last measurement."""

import numpy as np

from noneg.records.contents import RunFiles, SpectrumRow
from noneg.report.canvases import Canvases
from noneg.report.colors import H, Z
from noneg.report.html import Section
from noneg.report.sample import Sample

_MOST_LINES = 8
_DECADES = 9
_MEANINGS = {"h": ("representation", H), "z": ("projection", Z)}


def spectrum_section(run: RunFiles, sample: Sample | None, canvases: Canvases) -> Section | None:
    """A figure for each of h and z; without spectra.csv, of h as the trained encoder has it."""
    figures = []
    spectra = {name: [each for each in run.spectra if each.embedding == name] for name in _MEANINGS}
    note = ""
    if not run.spectra and sample is not None:
        spectra["h"] = [
            SpectrumRow(int(run.last("step") or 0), "h", eigenvalues(sample.embeddings))
        ]
        note = " This run recorded no spectra; this one is the trained encoder's, measured now."
    for name, found in spectra.items():
        if found:
            figures.append(_figure(name, found, canvases))
    if not figures:
        return None
    introduction = (
        "The variance of the embeddings in each direction, largest first. A line that drops "
        "sharply is a sign of dimensional collapse; a line that stays high means that many "
        f"directions are used.{note}"
    )
    return Section(
        "spectrum", "Spectrum", introduction, f'<div class="halves">{"".join(figures)}</div>'
    )


def eigenvalues(embeddings: np.ndarray) -> np.ndarray:
    """The min(N - 1, D) largest eigenvalues of the covariance of embeddings [N, D], in order."""
    centered = embeddings.astype(np.float64) - embeddings.mean(axis=0, dtype=np.float64)
    values = np.linalg.eigvalsh(centered.T @ centered / max(1, len(centered) - 1))[::-1]
    return values[: max(1, len(centered) - 1)]


def _figure(name: str, found: list[SpectrumRow], canvases: Canvases) -> str:
    meaning, color = _MEANINGS[name]
    if len(found) > _MOST_LINES:
        chosen = np.linspace(0, len(found) - 1, _MOST_LINES).round().astype(int)
        found = [found[each] for each in chosen]
    largest = max(float(each.eigenvalues.max()) for each in found)
    smallest = min(
        (float(values.min()) for each in found if (values := _positive(each, largest)).size),
        default=1.0,
    )
    width = max(len(each.eigenvalues) for each in found)
    plot = canvases.empty(
        240,
        tools="",
        y_axis_type="log",
        x_axis_type="log" if width > 8 else "linear",
        y_range=(smallest / 2, max(largest, 1e-30) * 2),
    )
    plot.xaxis.axis_label = "direction"
    plot.yaxis.axis_label = "variance"
    plot.xaxis.ticker.min_interval = 1
    for position, each in enumerate(found):
        age = (position + 1) / len(found)
        floor = largest * 10.0**-_DECADES
        values = np.where(each.eigenvalues > floor, each.eigenvalues, np.nan)
        plot.line(
            np.arange(1, len(values) + 1),
            values,
            color=color,
            line_alpha=0.2 + 0.8 * age**1.5,
            line_width=1.2 + 1.2 * (position == len(found) - 1),
        )
    half = _directions_for(found[-1], 0.5)
    most = _directions_for(found[-1], 0.9)
    label = (
        f"Spectrum of {name} at the last step: {half} of {width} directions hold half of the "
        f"variance, {most} hold 90%"
    )
    steps = f"step {found[0].step:,}"
    if len(found) > 1:
        steps = f"from {steps} (faint) to {found[-1].step:,} (strong)"
    return (
        f'<figure class="panel"><figcaption><span class="title"><b class="{name}">{name}</b>, the '
        f"{meaning}<small class=hint>{steps}</small></span><span class=reading>"
        f"<b>{half}</b> of {width} directions hold half of the variance, <b>{most}</b> hold 90%"
        f"</span></figcaption>{canvases.place(plot, label)}</figure>"
    )


def _positive(each: SpectrumRow, largest: float) -> np.ndarray:
    positive: np.ndarray = each.eigenvalues[each.eigenvalues > largest * 10.0**-_DECADES]
    return positive


def _directions_for(each: SpectrumRow, share: float) -> int:
    """How few directions hold this share of the variance."""
    values = np.maximum(each.eigenvalues, 0)
    if values.sum() <= 0:
        return 0
    return int(np.searchsorted(np.cumsum(values) / values.sum(), share - 1e-12) + 1)
