"""Nearest neighbors, suspected duplicates and outliers, by the cosine of centered embeddings."""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float32, Int64

from noneg.report.sample import Sample

NEIGHBORS = 10
DUPLICATE_COSINE = 0.99
_BLOCK = 1_000


@final
@dataclass(frozen=True, eq=False)
class Neighbors:
    """Of each image the nearest others, nearest first.

    Attributes:
        index: which they are [n, k].
        cosine: of each with the image [n, k], in [-1, 1].
    """

    index: Int64[np.ndarray, "n k"]
    cosine: Float32[np.ndarray, "n k"]

    @property
    def strangeness(self) -> Float32[np.ndarray, " n"]:
        """1 less the mean cosine with the k nearest, in [0, 2]: high for images like no other."""
        distance: Float32[np.ndarray, " n"] = 1 - self.cosine.mean(axis=1)
        return distance


@final
@dataclass(frozen=True)
class Pair:
    """Two images that may be one; `difference` is of their pixels, in [0, 1]; 0: they are equal."""

    first: int
    second: int
    cosine: float
    difference: float


def find_neighbors(directions: Float32[np.ndarray, "n width"]) -> Neighbors:
    """The `NEIGHBORS` nearest of each, in the memory of 1,000 rows of an n x n matrix."""
    n = len(directions)
    k = min(NEIGHBORS, n - 1)
    index = np.empty((n, k), dtype=np.int64)
    cosine = np.empty((n, k), dtype=np.float32)
    for start in range(0, n, _BLOCK):
        block = directions[start : start + _BLOCK] @ directions.T
        rows = np.arange(len(block))
        block[rows, start + rows] = -np.inf
        nearest = np.argpartition(-block, k - 1, axis=1)[:, :k]
        values = np.take_along_axis(block, nearest, axis=1)
        # Of equals the first, so that the order depends on the images alone.
        order = np.lexsort((nearest, -values), axis=1)
        index[start : start + _BLOCK] = np.take_along_axis(nearest, order, axis=1)
        cosine[start : start + _BLOCK] = np.take_along_axis(values, order, axis=1)
    return Neighbors(index, np.clip(cosine, -1, 1))


def find_duplicates(sample: Sample, neighbors: Neighbors) -> list[Pair]:
    """Pairs of cosine `DUPLICATE_COSINE` or more, those with the most equal pixels first.

    Of an image with more than k such neighbors the k nearest are considered.
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
    """The strangest images, strangest first."""
    order = np.argsort(-neighbors.strangeness, kind="stable")
    return [int(each) for each in order[:most]]


def find_typical(
    directions: Float32[np.ndarray, "n width"], clusters: Int64[np.ndarray, " n"], most: int
) -> list[int]:
    """Of each of the largest clusters the image nearest to its center."""
    numbers, sizes = np.unique(clusters, return_counts=True)
    chosen = []
    for number in numbers[np.argsort(-sizes, kind="stable")][:most]:
        members = np.flatnonzero(clusters == number)
        center = directions[members].mean(axis=0)
        chosen.append(int(members[np.argmax(directions[members] @ center)]))
    return chosen
