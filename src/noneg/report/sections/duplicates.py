"""Suspected duplicates and outliers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from noneg.collection.neighbors import Neighbors
from noneg.report.html import Section
from noneg.report.numbers import count
from noneg.report.pictures import Atlas, file_name
from noneg.report.sample import Sample

DUPLICATE_COSINE = 0.99
_MOST_PAIRS = 12
MOST_OUTLIERS = 16


@final
@dataclass(frozen=True)
class Pair:
    """Two images that may be the same.

    Attributes:
        first: index of an image.
        second: index of the other, larger than `first`.
        cosine: of their embeddings.
        difference: mean absolute difference of their pixels, in [0, 1].
    """

    first: int
    second: int
    cosine: float
    difference: float


def find_duplicates(sample: Sample, neighbors: Neighbors) -> list[Pair]:
    """Pairs whose cosine is at least `DUPLICATE_COSINE`, in order of the difference of pixels.

    Only the k nearest neighbors of each image are considered.
    """
    rows, columns = np.nonzero(neighbors.cosine >= DUPLICATE_COSINE)
    others = neighbors.index[rows, columns]
    pairs = {
        (int(min(a, b)), int(max(a, b))): float(neighbors.cosine[a, column])
        for a, b, column in zip(rows, others, columns, strict=True)
    }
    found = [
        Pair(first, second, cosine, _difference(sample, first, second))
        for (first, second), cosine in pairs.items()
    ]
    return sorted(found, key=lambda pair: (pair.difference, -pair.cosine, pair.first, pair.second))


def _difference(sample: Sample, first: int, second: int) -> float:
    a, b = (sample.pixels[each].astype(np.int16) for each in (first, second))
    return float(np.abs(a - b).mean() / 255)


def find_outliers(neighbors: Neighbors, most: int) -> list[int]:
    """The `most` images that are farthest from their neighbors, farthest first."""
    order = np.argsort(-neighbors.strangeness, kind="stable")
    return [int(each) for each in order[:most]]


def duplicates_section(
    sample: Sample,
    pairs: Sequence[Pair],
    neighbors: Neighbors,
    outliers: Sequence[int],
    atlas: Atlas,
) -> Section:
    """Pairs of images that may be the same, and images that no other resembles."""
    introduction = f"Found in {sample.share}, by the embeddings only. Look before you delete."
    body = _duplicates(sample, pairs, atlas) + _outliers(sample, neighbors, outliers, atlas)
    return Section("duplicates", "Duplicates and outliers", introduction, body)


def _duplicates(sample: Sample, pairs: Sequence[Pair], atlas: Atlas) -> str:
    shown = "".join(_pair(sample, each, atlas) for each in pairs[:_MOST_PAIRS])
    return (
        f'<div class="block"><h3>Suspected duplicates: {count(len(pairs), "pair")}</h3>'
        f'<p class="note">Pairs whose cosine is {DUPLICATE_COSINE} or more. Those whose pixels '
        "differ least come first"
        f"{f'; the first {_MOST_PAIRS} are shown' if len(pairs) > _MOST_PAIRS else ''}.</p>"
        + (f'<div class="pairs">{shown}</div>' if pairs else '<p class="nothing">None.</p>')
        + "</div>"
    )


def _outliers(sample: Sample, neighbors: Neighbors, outliers: Sequence[int], atlas: Atlas) -> str:
    strangeness = neighbors.strangeness
    cells = "".join(
        f'<div class="cell">{atlas.picture(each, sample.names[each])}'
        f"<small>{strangeness[each]:.2f}</small>{file_name(sample.names[each])}</div>"
        for each in outliers
    )
    return (
        '<div class="block"><h3>Suspected outliers</h3><p class="note">The images farthest from '
        f"their {neighbors.index.shape[1]} nearest neighbors. The number is 1 minus the mean "
        f"cosine with these; its median over all images is {float(np.median(strangeness)):.2f}."
        f'</p><div class="row outliers">{cells}</div></div>'
    )


def _pair(sample: Sample, pair: Pair, atlas: Atlas) -> str:
    pixels = (
        "equal pixels"
        if pair.difference == 0
        else f"pixels differ by {max(0.1, 100 * pair.difference):.1f}%"
    )
    names = "".join(file_name(sample.names[each]) for each in (pair.first, pair.second))
    return (
        f'<div class="pair"><div>{atlas.picture(pair.first, sample.names[pair.first])}'
        f"{atlas.picture(pair.second, sample.names[pair.second])}</div>"
        f"<small>cosine {pair.cosine:.4f}, {pixels}</small>{names}</div>"
    )
