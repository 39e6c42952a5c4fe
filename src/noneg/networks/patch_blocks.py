"""Which patches are seen and which are predicted: random rectangles of a grid of patches (I-JEPA).

They are functions of (key, image), like the views: the same in any batch, chunk or process.
"""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Int64

from noneg.errors import NonegError
from noneg.randomness import hash_key, uniform

_SIZES, _PLACES = 0x51, 0x9A

_TRIES = 4

_LEAST_CONTEXT = 0.05
"""Share of the grid; the authors want more than 10 of 196 patches."""


@final
@dataclass(frozen=True)
class PatchBlocks:
    """Patches are numbered row by row.

    Args:
        targets: int64 [batch, blocks, patches], the patches of each block that is predicted.
        context: bool [batch, grid], the patches that are seen: none of these.
    """

    targets: Int64[np.ndarray, "batch blocks patches"]
    context: Bool[np.ndarray, "batch grid"]


def draw_blocks(
    key: int,
    index: Int64[np.ndarray, "batch"],
    grid: tuple[int, int],
    *,
    view: int = 0,
    blocks: int,
    target_scale: tuple[float, float],
    target_aspect: tuple[float, float],
    context_scale: tuple[float, float],
) -> PatchBlocks:
    """Blocks to predict, and a larger square without them (I-JEPA, 2301.08243, section 3).

    The sizes are those of the key, so that a batch is one tensor; the places are those of each view
    of each image, and every place within the grid is equally likely. In the authors' code, a block
    never reaches the last row and column, and images see as few patches as the one of their batch
    that sees fewest.

    If an image would see less than a twentieth of the grid, its places are drawn again, up to three
    times; the last time, the blocks to predict are in one place.

    Args:
        key: of the step.
        index: which images these are.
        grid: rows and columns of patches.
        view: number of the view.
        blocks: number of blocks to predict.
        target_scale: their area as a share of the grid's, sampled uniformly; rounded to patches.
        target_aspect: their height over their width, sampled uniformly.
        context_scale: area of the square as a share of the grid's, sampled uniformly.

    Raises:
        NonegError: a block to predict is as large as the square.
    """
    height, width = grid
    sizes = uniform(hash_key(key, _SIZES), np.zeros(1, dtype=np.int64), 3)
    scale, aspect, larger = sizes[0].tolist()
    target = _size(grid, _between(target_scale, scale), _between(target_aspect, aspect))
    context = _size(grid, _between(context_scale, larger), 1.0)
    if math.prod(context) <= math.prod(target):
        raise NonegError(
            f"of {height} x {width} patches, blocks of {target[0]} x {target[1]} would leave "
            f"nothing of the {context[0]} x {context[1]} that are seen: give a smaller "
            "--options.target-scale, or a network with smaller patches"
        )
    batch = len(index)
    numbers = uniform(hash_key(key, _PLACES, view), index, _TRIES * (blocks + 1) * 2)
    numbers = numbers.reshape(batch, _TRIES, blocks + 1, 2)
    # So one place is left over at the end, whatever was drawn.
    numbers[:, -1] = numbers[:, -1, :1]
    rows, columns = np.array([target] * blocks + [context]).T
    # Not the authors' randint, which leaves out the last place.
    top = (numbers[..., 0] * (height - rows + 1)).astype(np.int64)
    left = (numbers[..., 1] * (width - columns + 1)).astype(np.int64)
    inside = (
        _covers(top, rows, height)[..., :, None] & _covers(left, columns, width)[..., None, :]
    ).reshape(batch, _TRIES, blocks + 1, height * width)
    seen = inside[:, :, -1] & ~inside[:, :, :-1].any(axis=2)
    enough = seen.sum(axis=2) >= max(1, round(_LEAST_CONTEXT * height * width))
    enough[:, -1] = True
    chosen = np.arange(batch), enough.argmax(axis=1)
    first = (top * width + left)[chosen][:, :-1]
    within = np.arange(target[0])[:, None] * width + np.arange(target[1])
    return PatchBlocks(targets=first[..., None] + within.ravel(), context=seen[chosen])


def _between(bounds: tuple[float, float], share: float) -> float:
    low, high = bounds
    return low + (high - low) * share


def _size(grid: tuple[int, int], scale: float, aspect: float) -> tuple[int, int]:
    """Rows and columns, at least one and at most the grid's."""
    area = scale * math.prod(grid)
    height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    return min(max(height, 1), grid[0]), min(max(width, 1), grid[1])


def _covers(
    start: Int64[np.ndarray, "batch tries blocks"], length: Int64[np.ndarray, "blocks"], side: int
) -> Bool[np.ndarray, "batch tries blocks {side}"]:
    """Which of the `side` places each interval covers."""
    places = np.arange(side)
    after, before = places >= start[..., None], places < (start + length)[..., None]
    covered: Bool[np.ndarray, "batch tries blocks {side}"] = after & before
    return covered
