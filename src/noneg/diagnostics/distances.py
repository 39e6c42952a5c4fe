"""Squared distances between all embeddings, in blocks of bounded memory."""

from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor

BLOCK = 1024
"""Rows of the matrix of distances that are in memory at once."""


def squared_distances(
    a: Float[Tensor, "rows width"], b: Float[Tensor, "columns width"]
) -> Iterator[tuple[int, Float[Tensor, "block columns"]]]:
    """Blocks of |a_i - b_j|^2, each with the index of its first row."""
    columns = b.square().sum(dim=1)
    for start in range(0, a.shape[0], BLOCK):
        block = a[start : start + BLOCK]
        squared = block.square().sum(dim=1)[:, None] + columns - 2 * (block @ b.T)
        yield start, squared.clamp(min=0)
