"""Which images make up which step: a function of (seed, epoch, step), whatever the rank."""

from collections.abc import Callable, Iterator
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from noneg.images import PixelsOnDemand
from noneg.randomness import hash_key, permutation

# Keeps the order of images apart from the draws of their views.
_ORDER = 0x0DE5


def epoch_order(seed: int, epoch: int, count: int) -> Int[Tensor, "count"]:
    """The order of the images in one epoch."""
    return torch.from_numpy(permutation(hash_key(seed, epoch, _ORDER), count))


@final
class Batches:
    """The batches of one epoch, this rank's slice of each; the last, uneven one is dropped.

    Lightning iterates over it once an epoch. It begins at the run's current step, so a resumed
    run goes on in the middle of an epoch.
    """

    def __init__(
        self,
        pixels: UInt8[np.ndarray, "images channels height width"] | PixelsOnDemand,
        batch_size: int,
        seed: int,
        current_step: Callable[[], int],
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        """`batch_size` counts over all ranks, `current_step` from the start of the run."""
        self.pixels = pixels
        self.batch_size = batch_size
        self.seed = seed
        self.current_step = current_step
        self.local = slice(rank * batch_size // ranks, (rank + 1) * batch_size // ranks)

    def __len__(self) -> int:
        return len(self.pixels) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch, first = divmod(self.current_step(), len(self))
        order = epoch_order(self.seed, epoch, len(self.pixels))
        for step in range(first, len(self)):
            index = self._part(order, step)
            if isinstance(self.pixels, np.ndarray):
                images = torch.index_select(torch.from_numpy(self.pixels), 0, index)
            else:
                # This step's first, then the next one's while this one trains.
                self.pixels.prefetch(index.numpy())
                self.pixels.prefetch(self._part(order, step + 1).numpy())
                images = torch.from_numpy(self.pixels[index.numpy()])
            yield images, index

    def _part(self, order: Int[Tensor, "count"], step: int) -> Int[Tensor, "part"]:
        if step == len(self):
            return order[:0]
        return order[step * self.batch_size : (step + 1) * self.batch_size][self.local]

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the step counter is the state. Lightning asks, to know that this can resume."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `state_dict`."""
