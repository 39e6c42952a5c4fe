"""The order of images: each once per epoch, on any number of processes, from any step."""

import numpy as np
import torch

from noneg.images import PixelsOnDemand, find_source
from noneg.training.batches import batches, epoch_order


def indices(pixels: np.ndarray, batch_size: int, steps: range, **ranks: int) -> list[list[int]]:
    return [index.tolist() for _, _, index in batches(pixels, batch_size, 0, steps, **ranks)]


def test_an_epoch_shows_each_image_once_in_another_order() -> None:
    first, second = epoch_order(0, 0, 50), epoch_order(0, 1, 50)
    assert sorted(first.tolist()) == list(range(50))
    assert not torch.equal(first, second)
    assert not torch.equal(first, epoch_order(1, 0, 50))


def test_batches_continue_from_any_step_over_epochs() -> None:
    pixels = np.tile(np.arange(23, dtype=np.uint8)[:, None, None, None], (1, 1, 2, 2))
    whole = indices(pixels, 5, range(8))
    assert len({image for batch in whole[:4] for image in batch}) == 20
    assert indices(pixels, 5, range(2, 8)) == whole[2:]
    assert whole[:4] != whole[4:]
    steps = []
    for step, images, index in batches(pixels, 5, 0, range(3, 6)):
        steps.append(step)
        assert torch.equal(images[:, 0, 0, 0].to(torch.int64), index)
    assert steps == [3, 4, 5]


def test_images_on_demand_come_in_the_same_order() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (11, 8, 8, 3), dtype=np.uint8)
    in_memory = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    on_demand = PixelsOnDemand(find_source(pixels), 3, 8)
    pairs = zip(batches(in_memory, 4, 0, range(5)), batches(on_demand, 4, 0, range(5)), strict=True)
    for (_, images, index), (_, other_images, other_index) in pairs:
        assert torch.equal(index, other_index)
        assert torch.equal(images, other_images)


def test_ranks_share_a_batch() -> None:
    pixels = np.zeros((30, 1, 2, 2), dtype=np.uint8)
    whole = indices(pixels, 8, range(6))
    parts = [indices(pixels, 8, range(6), rank=rank, ranks=4) for rank in range(4)]
    for number, batch in enumerate(whole):
        assert [image for part in parts for image in part[number]] == batch
