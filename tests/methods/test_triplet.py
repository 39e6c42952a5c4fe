"""Random negatives depend on the images of a batch, not on their order."""

import pytest
import torch
from test_contract import BATCH, assert_same_gradients, build, make_views
from torch import Tensor

from noneg.methods.base import Embeddings
from noneg.methods.triplet import Triplet, _next_in_cycle
from noneg.training.step import compute_gradient, compute_gradient_in_chunks


def following(index: Tensor, seed: int) -> dict[int, int]:
    """The negative of each image."""
    torch.manual_seed(seed)
    z = torch.zeros(2, len(index), 3)
    negatives = _next_in_cycle(Embeddings(h=z, z=z, index=index))
    return dict(zip(index.tolist(), index[negatives].tolist(), strict=True))


def test_every_image_is_the_negative_of_one_other() -> None:
    index = torch.arange(100, 140)
    pairs = following(index, seed=0)
    assert sorted(pairs.values()) == index.tolist()
    image, seen = 100, []
    for _ in index:
        seen.append(image)
        image = pairs[image]
    # One cycle, so no image is its own negative.
    assert sorted(seen) == index.tolist()


def test_the_cycle_depends_only_on_the_step_and_the_images() -> None:
    index = torch.arange(40)
    shuffled = index[torch.randperm(40, generator=torch.Generator().manual_seed(1))]
    assert following(index, seed=5) == following(shuffled, seed=5)
    assert following(index, seed=5) != following(index, seed=6)


def test_any_other_image_is_as_likely() -> None:
    counts = torch.zeros(5, 5)
    for seed in range(600):
        for image, other in following(torch.arange(5), seed).items():
            counts[image, other] += 1
    assert torch.equal(counts.diagonal(), torch.zeros(5))
    expected = counts[~torch.eye(5, dtype=torch.bool)] / 150
    # Five standard deviations of a share of 1 in 4.
    assert (expected - 1).abs().max() < 5 * (0.25 * 0.75 / 600) ** 0.5 / 0.25


@pytest.mark.parametrize("negatives", ["random", "semi_hard", "hardest"])
def test_order_and_chunks_change_nothing(negatives: str) -> None:
    methods = [build("triplet", negatives=negatives).eval() for _ in range(3)]
    whole, shuffled, chunked = methods
    assert isinstance(whole, Triplet)
    views, order = make_views(), torch.randperm(BATCH, generator=torch.Generator().manual_seed(3))
    loss, _ = compute_gradient(whole, views, torch.arange(BATCH), seed=7)
    other, _ = compute_gradient(shuffled, tuple(view[order] for view in views), order, seed=7)
    torch.testing.assert_close(other.value, loss.value)
    assert_same_gradients(shuffled, whole)
    piecewise, _ = compute_gradient_in_chunks(
        chunked, lambda part: tuple(view[part] for view in views), torch.arange(BATCH), 5, seed=7
    )
    torch.testing.assert_close(piecewise.value, loss.value)
    assert_same_gradients(chunked, whole)


def test_another_step_has_other_random_negatives() -> None:
    def loss(negatives: str, seed: int) -> float:
        method = build("triplet", negatives=negatives)
        return float(
            compute_gradient(method, make_views(), torch.arange(BATCH), seed=seed)[0].value.detach()
        )

    assert loss("random", 1) != loss("random", 2)
    assert loss("semi_hard", 1) == loss("semi_hard", 2)
