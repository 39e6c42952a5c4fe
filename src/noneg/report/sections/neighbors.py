"""Nearest neighbors: images, each with those that the encoder finds most similar."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int64

from noneg.collection.neighbors import Neighbors, nearest
from noneg.report.html import Section
from noneg.report.numbers import percent
from noneg.report.pictures import Atlas, file_name
from noneg.report.sample import Sample

NEIGHBORS = 10
_QUERIES = 6


def find_neighbors(directions: Float32[np.ndarray, "n width"]) -> Neighbors:
    """The `NEIGHBORS` nearest of each image.

    Args:
        directions: centered embeddings of length 1 [n, D].
    """
    return nearest(directions, directions, NEIGHBORS, same=True)


def find_typical(
    directions: Float32[np.ndarray, "n width"], clusters: Int64[np.ndarray, " n"], most: int
) -> list[int]:
    """The image nearest to the center of each of the `most` largest clusters."""
    numbers, sizes = np.unique(clusters, return_counts=True)
    chosen = []
    for number in numbers[np.argsort(-sizes, kind="stable")][:most]:
        members = np.flatnonzero(clusters == number)
        center = directions[members].mean(axis=0)
        chosen.append(int(members[np.argmax(directions[members] @ center)]))
    return chosen


def neighbors_section(
    sample: Sample,
    neighbors: Neighbors,
    clusters: Int64[np.ndarray, " n"],
    outliers: Sequence[int],
    atlas: Atlas,
) -> Section:
    """Typical images and outliers, six each, with their nearest neighbors."""
    typical = find_typical(sample.directions, clusters, _QUERIES)
    odd = [each for each in outliers[: 2 * _QUERIES] if each not in typical][:_QUERIES]
    blocks = [
        f'<div class="block"><h3>{title}</h3>'
        f"{''.join(_row(query, sample, neighbors, atlas) for query in queries)}</div>"
        for title, queries in (
            ("Typical: nearest to the center of a cluster", typical),
            ("Odd: farthest from their neighbors", odd),
        )
        if queries
    ]
    introduction = (
        "The image on the left, then its nearest neighbors by the cosine of embeddings minus their "
        f"mean.{_agreement(sample, neighbors)}"
    )
    return Section("neighbors", "Nearest neighbors", introduction, "".join(blocks))


def _agreement(sample: Sample, neighbors: Neighbors) -> str:
    """How often neighbors have the same label."""
    if sample.labels is None:
        return ""
    same = sample.labels[neighbors.index] == sample.labels[:, None]
    shares = np.bincount(sample.labels[sample.labels >= 0]) / len(sample.labels)
    return (
        f" {percent(float(same.mean()))} of the {neighbors.index.shape[1]} nearest neighbors have "
        f"the image's own label ({percent(float(np.square(shares).sum()))} by chance). They have a "
        "ring."
    )


def _row(query: int, sample: Sample, neighbors: Neighbors, atlas: Atlas) -> str:
    cells = []
    for other, cosine in zip(neighbors.index[query], neighbors.cosine[query], strict=True):
        same = sample.labels is not None and sample.labels[other] == sample.labels[query]
        cells.append(
            f'<div class="cell{" same" if same else ""}">'
            f"{atlas.picture(int(other), sample.names[other])}<small>{cosine:.2f}</small></div>"
        )
    name = sample.names[query]
    return (
        f'<div class="row"><div class="cell query">{atlas.picture(query, name)}'
        f"{file_name(name)}</div>{''.join(cells)}</div>"
    )
