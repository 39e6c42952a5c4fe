"""Exact nearest neighbors by cosine, in memory that does not grow with the square of the images."""

from dataclasses import dataclass
from itertools import pairwise
from typing import final

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from noneg.errors import NonegError
from noneg.evaluation.standardize import whitened

# Cosines that are computed at a time, 64 MB of float32, and of how many images of the bank.
_COSINES, _COLUMNS = 2**24, 2**16
# The best of each so many cosines is found first; only the best groups are looked into.
_GROUP = 64


@final
@dataclass(frozen=True, eq=False)
class Neighbors:
    """The nearest of a bank for each query, nearest first, and equals in the order of the bank.

    Attributes:
        index: positions in the bank [Q, k].
        cosine: of each neighbor with the query [Q, k], in [-1, 1].
    """

    index: Int64[np.ndarray, "queries k"]
    cosine: Float32[np.ndarray, "queries k"]

    @property
    def strangeness(self) -> Float32[np.ndarray, " queries"]:
        """1 - the mean cosine with the k neighbors, in [0, 2]: high if no image is similar."""
        distance: Float32[np.ndarray, " queries"] = 1 - self.cosine.mean(axis=1)
        return distance


def comparable(
    bank: Float32[np.ndarray, "bank width"], *others: Float32[np.ndarray, "_ width"]
) -> tuple[Float32[np.ndarray, "_ width"], ...]:
    """Vectors of length 1 whose cosines compare images: whitened by the bank, as for the scores.

    Args:
        bank: embeddings of the collection [N, D].
        others: embeddings of other images, which take no part in the whitening.

    Raises:
        NonegError: there are none, or they are not finite.
    """
    rest = np.concatenate(others) if others else bank[:1]
    first, second = whitened(bank, rest)
    bounds = np.cumsum([0, *map(len, others)])
    parts = (second[low:high] for low, high in pairwise(bounds))
    return unit(first), *map(unit, parts)


def unit(vectors: Float32[np.ndarray, "n width"]) -> Float32[np.ndarray, "n width"]:
    """The same array, whose rows now have length 1; zeros stay zeros."""
    # In place: there may be a million.
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return vectors


def nearest(
    queries: Float32[np.ndarray, "queries width"],
    bank: Float32[np.ndarray, "bank width"],
    k: int,
    *,
    same: bool = False,
) -> Neighbors:
    """The k nearest of the bank for each query, exactly.

    Args:
        queries: vectors of length 1 [Q, D].
        bank: vectors of length 1 [N, D].
        k: neighbors per query, 1 or more; if the bank has fewer, all of it.
        same: whether queries and bank are the same images; then none is its own neighbor.

    Raises:
        NonegError: k is below 1, or there is nothing to find.
    """
    k = min(k, len(bank) - same)
    if k < 1:
        raise NonegError("there is no other image to find: give at least two images, and k of 1")
    found, place = torch.from_numpy(bank), torch.from_numpy(queries)
    columns = min(len(bank), _COLUMNS)
    rows = max(1, _COSINES // columns)
    index = np.empty((len(queries), k), dtype=np.int64)
    cosine = np.empty((len(queries), k), dtype=np.float32)
    for start in range(0, len(queries), rows):
        part = place[start : start + rows]
        values = torch.empty(len(part), 0)
        positions = torch.empty(len(part), 0, dtype=torch.int64)
        for first in range(0, len(bank), columns):
            block = part @ found[first : first + columns].T
            if same:
                _leave_out_diagonal(block, start - first)
            best, where = _largest(block, min(k, block.shape[1]))
            values = torch.cat([values, best], dim=1)
            positions = torch.cat([positions, where + first], dim=1)
            if values.shape[1] > k:
                values, chosen = values.topk(k, dim=1)
                positions = positions.gather(1, chosen)
        order = np.lexsort((positions.numpy(), -values.numpy()), axis=1)
        index[start : start + rows] = np.take_along_axis(positions.numpy(), order, axis=1)
        cosine[start : start + rows] = np.take_along_axis(values.numpy(), order, axis=1)
    return Neighbors(index, np.clip(cosine, -1, 1))


def _leave_out_diagonal(block: Tensor, offset: int) -> None:
    """Row i of the block is the image of its column i + offset."""
    low, high = max(0, -offset), min(len(block), block.shape[1] - offset)
    if low < high:
        rows = torch.arange(low, high)
        block[rows, rows + offset] = -torch.inf


def _largest(block: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row, and their columns. It reads the block once, unlike topk."""
    rows, columns = block.shape
    groups = columns // _GROUP
    if groups < 4 * k:
        best, where = block.topk(k, dim=1)
        return best, where
    whole = groups * _GROUP
    # The k largest lie in the k groups with the largest maxima.
    parts = block[:, :whole].reshape(rows, groups, _GROUP)
    _, chosen = parts.amax(dim=2).topk(k, dim=1)
    candidates = parts.gather(1, chosen[:, :, None].expand(-1, -1, _GROUP)).flatten(1)
    names = (chosen[:, :, None] * _GROUP + torch.arange(_GROUP)).flatten(1)
    candidates = torch.cat([candidates, block[:, whole:]], 1)
    names = torch.cat([names, torch.arange(whole, columns).expand(rows, -1)], 1)
    best, at = candidates.topk(k, dim=1)
    return best, names.gather(1, at)
