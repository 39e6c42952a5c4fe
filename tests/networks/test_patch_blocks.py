"""Blocks of patches: where they can be, what is left to see, and what they depend on."""

from typing import Any

import numpy as np
import pytest

from noneg.errors import NonegError
from noneg.networks.patch_blocks import PatchBlocks, draw_blocks

PAPER: dict[str, Any] = {
    "blocks": 4,
    "target_scale": (0.15, 0.2),
    "target_aspect": (0.75, 1.5),
    "context_scale": (0.85, 1.0),
}
IMAGES = np.arange(4000)


def draw(
    key: int = 0, grid: tuple[int, int] = (14, 14), index: np.ndarray = IMAGES, **changed: Any
) -> PatchBlocks:
    return draw_blocks(key, index, grid, **PAPER | changed)


@pytest.mark.parametrize("grid", [(4, 4), (8, 8), (14, 14), (6, 9)])
def test_blocks_are_rectangles_and_the_context_sees_none_of_them(grid: tuple[int, int]) -> None:
    for key in range(10):
        drawn = draw(key, grid, IMAGES[:500])
        rows, columns = drawn.targets // grid[1], drawn.targets % grid[1]
        assert rows.min() >= 0
        assert rows.max() < grid[0]
        height, width = (np.ptp(each, axis=2) + 1 for each in (rows, columns))
        assert len(np.unique(height)) == len(np.unique(width)) == 1
        patches = int(height[0, 0] * width[0, 0])
        assert drawn.targets.shape == (500, 4, patches)
        assert (np.diff(drawn.targets, axis=2) > 0).all()
        hidden = np.take_along_axis(drawn.context, drawn.targets.reshape(500, -1), axis=1)
        assert not hidden.any()
        assert drawn.context.sum(axis=1).min() >= 1


def test_sizes_are_the_papers_and_change_with_the_key() -> None:
    drawn = [draw(key, index=IMAGES[:1]) for key in range(100)]
    areas = np.array([each.targets.shape[2] for each in drawn]) / 14**2
    # Sides are rounded to patches.
    assert 0.12 < areas.min() < 0.16 < 0.18 < areas.max() < 0.23
    shapes = {(int(np.ptp(each.targets[0, 0] // 14)) + 1, each.targets.shape[2]) for each in drawn}
    aspects = [height**2 / area for height, area in shapes]
    assert min(aspects) < 0.85
    assert max(aspects) > 1.3


def test_all_places_are_equally_likely_the_last_row_and_column_too() -> None:
    drawn = draw()
    first, last = drawn.targets[..., 0], drawn.targets[..., -1]
    for corner, end in ((first // 14, last // 14), (first % 14, last % 14)):
        places = 14 - int((end - corner)[0, 0])
        counts = np.bincount(corner.ravel(), minlength=places)
        assert len(counts) == places
        assert end.max() == 13
        expected = corner.size / places
        assert np.abs(counts - expected).max() < 5 * expected**0.5
    # The rows of one block say nothing of another one's, nor of its columns.
    corners = np.concatenate([first // 14, first % 14], axis=1)
    correlation = np.corrcoef(corners.T) - np.eye(8)
    assert np.abs(correlation).max() < 5 / len(IMAGES) ** 0.5
    assert drawn.context.any(axis=0).all()


def test_an_images_blocks_are_the_same_in_any_batch() -> None:
    whole, some = draw(), np.array([7, 3, 3999])
    part = draw(index=some)
    np.testing.assert_array_equal(part.targets, whole.targets[some])
    np.testing.assert_array_equal(part.context, whole.context[some])


def test_images_views_and_keys_differ() -> None:
    drawn = draw()
    assert len(np.unique(drawn.targets[:, :, 0], axis=0)) > 3500
    other = draw(view=1)
    assert other.targets.shape == drawn.targets.shape
    assert (other.targets[:, :, 0] == drawn.targets[:, :, 0]).mean() < 0.1
    same_sizes = next(
        each for each in map(draw, range(1, 50)) if each.targets.shape == drawn.targets.shape
    )
    assert (same_sizes.targets == drawn.targets).mean() < 0.1


def test_something_is_always_left_to_see() -> None:
    """A hundred blocks cover a small grid, and drawing again does not help: one place is left."""
    drawn = draw(grid=(4, 4), index=IMAGES[:500], blocks=100)
    assert drawn.context.any(axis=1).all()
    in_one_place = (drawn.targets == drawn.targets[:, :1]).all(axis=(1, 2))
    assert in_one_place.mean() > 0.9
    # With four blocks, this is the exception.
    drawn = draw(grid=(4, 4))
    assert (drawn.targets == drawn.targets[:, :1]).all(axis=(1, 2)).mean() < 0.01


def test_blocks_as_large_as_the_context_are_refused() -> None:
    with pytest.raises(NonegError, match=r"of 8 x 8 patches.*--options.target-scale"):
        draw(grid=(8, 8), target_scale=(0.9, 1.0), target_aspect=(1.0, 1.0))
