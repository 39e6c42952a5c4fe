"""The window holds the last images in order, in one block of memory."""

import pytest
import torch

from noneg.training.metering import Window


@pytest.mark.parametrize("sizes", [[3], [3, 4], [3, 4, 5], [5, 5], [10], [11], [25, 2], [1] * 23])
def test_the_last_images_in_order_of_arrival(sizes: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    window = Window(10)
    batches = [torch.randn(2, size, 3, generator=generator) for size in sizes]
    for batch in batches:
        window.add(batch)
    expected = torch.cat(batches, dim=1)[:, -10:]
    assert len(window) == expected.shape[1]
    assert torch.equal(window.views(), expected)


def test_embeddings_are_copied_in_and_out() -> None:
    for images in (2, 4):
        window = Window(4)
        batch = torch.ones(2, images, 3, requires_grad=True)
        window.add(batch)
        held = window.views()
        assert not held.requires_grad
        with torch.no_grad():
            batch.zero_()
        window.add(batch)
        window.add(batch)
        assert torch.equal(held, torch.ones(2, images, 3))
        assert float(window.views().sum()) == 0


def test_memory_is_allocated_once() -> None:
    window = Window(8)
    window.add(torch.zeros(2, 5, 3))
    assert window._ring is not None
    where = window._ring.data_ptr()
    for _ in range(5):
        window.add(torch.zeros(2, 5, 3))
    assert window._ring.data_ptr() == where
    assert window._ring.shape == (2, 8, 3)


@pytest.mark.parametrize("shape", [(3, 2, 3), (2, 2, 4)], ids=["views", "width"])
def test_other_sizes_start_an_empty_window(shape: tuple[int, ...]) -> None:
    window = Window(8)
    window.add(torch.zeros(2, 5, 3))
    window.add(torch.ones(shape))
    assert torch.equal(window.views(), torch.ones(shape))


def test_narrow_floats_are_held_as_float32_and_remembered_as_coarse() -> None:
    window = Window(8)
    window.add(torch.ones(2, 5, 3))
    assert window.resolution == torch.finfo(torch.float32).eps
    window.add(torch.full((2, 5, 3), 1.5).bfloat16())
    assert window.views().dtype == torch.float32
    assert window.resolution == torch.finfo(torch.bfloat16).eps
    window.add(torch.ones(2, 5, 3, dtype=torch.float64))
    assert window.resolution == torch.finfo(torch.bfloat16).eps


def test_an_empty_window_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="empty"):
        Window(8).views()
    window = Window(8)
    window.add(torch.zeros(2, 0, 3))
    assert window.views().shape == (2, 0, 3)
