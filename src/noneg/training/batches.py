"""The images of each step: a function of (seed, epoch, step), on any number of processes."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from noneg.images import PixelsOnDemand
from noneg.randomness import hash_key, permutation

# Separates the order of the images from the random numbers of their views.
_ORDER = 0x0DE5


def epoch_order(seed: int, epoch: int, count: int) -> Int[Tensor, "count"]:
    """The order of the images in one epoch."""
    return torch.from_numpy(permutation(hash_key(seed, epoch, _ORDER), count))


def batches(
    pixels: UInt8[np.ndarray, "images channels height width"] | PixelsOnDemand,
    batch_size: int,
    seed: int,
    steps: range,
    *,
    rank: int = 0,
    ranks: int = 1,
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """This process's part of each step's batch.

    The last, incomplete batch of an epoch is left out. Images on demand are decoded one step ahead.

    Args:
        pixels: all images.
        batch_size: images per step over all processes.
        seed: decides the order.
        steps: counted from the start of the run; a resumed run begins in the middle of an epoch.
        rank: number of this process.
        ranks: number of processes.

    Returns:
        An iterator over (step, uint8 [B, C, H, W], the images' indices int64 [B]).
    """
    per_epoch = len(pixels) // batch_size
    local = slice(rank * batch_size // ranks, (rank + 1) * batch_size // ranks)
    order, ordered = torch.empty(0, dtype=torch.int64), -1
    for step in steps:
        epoch, number = divmod(step, per_epoch)
        if epoch != ordered:
            order, ordered = epoch_order(seed, epoch, len(pixels)), epoch
        index = order[number * batch_size :][local]
        if isinstance(pixels, np.ndarray):
            images = torch.index_select(torch.from_numpy(pixels), 0, index)
        else:
            pixels.prefetch(index.numpy())
            if number + 1 < per_epoch:
                pixels.prefetch(order[(number + 1) * batch_size :][local].numpy())
            images = torch.from_numpy(pixels[index.numpy()])
        yield step, images, index
