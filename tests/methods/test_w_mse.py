"""W-MSE as its authors have it: random groups, each view whitened by itself."""

import numpy as np
import pytest
import torch
from test_contract import build
from torch import Tensor

from noneg.errors import NonegError
from noneg.losses import w_mse
from noneg.methods.base import Embeddings, random_order


def random_views(batch: int, width: int, views: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(views, batch, width, generator=generator, dtype=torch.float64)


def white(z: np.ndarray) -> np.ndarray:
    inverse = np.linalg.inv(np.linalg.cholesky(np.cov(z.T)))
    rows = (z - z.mean(axis=0)) @ inverse.T
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("views", [2, 3])
def test_groups_of_each_view_are_the_authors(views: int) -> None:
    """One permutation for all views; the mean over shuffles, images and pairs of views."""
    method = build("w_mse", projector=(8, 3), group=6, shuffles=2).double()
    z = random_views(15, 3, views)
    e = Embeddings(h=z, z=z)
    torch.manual_seed(4)
    actual = float(method.objective(e).value)
    torch.manual_seed(4)
    distances = []
    for _ in range(2):
        order = random_order(e).numpy()
        assert sorted(order) == list(range(15))
        # As even as possible: 8 and 7.
        for part in (order[:8], order[8:]):
            whitened = [white(view[part]) for view in z.numpy()]
            pairs = [(a, b) for a in range(views) for b in range(a + 1, views)]
            distances.append([((whitened[a] - whitened[b]) ** 2).sum(axis=1) for a, b in pairs])
    expected = np.mean(np.concatenate([np.ravel(each) for each in distances]))
    assert actual == pytest.approx(float(expected), rel=1e-9)


def test_each_view_may_be_mapped_by_its_own_triangular_matrix() -> None:
    """Cholesky whitens either to the same rows; whitening both together does not."""
    z = random_views(9, 3)
    lower = torch.tensor([[2.0, 0, 0], [1, 0.5, 0], [-1, 3, 4]], dtype=torch.float64)
    moved = torch.stack([z[0] @ lower.T + 1, z[1]])
    same = w_mse(moved, per_view=True)["w_mse"]
    assert float(same) == pytest.approx(float(w_mse(z, per_view=True)["w_mse"]))
    assert float(w_mse(moved)["w_mse"]) != pytest.approx(float(w_mse(z)["w_mse"]), rel=1e-3)


def test_whitened_groups_use_all_directions_alike() -> None:
    """The sum of squares is width (n - 1); opposite views have the largest distance."""
    z = random_views(12, 3)[0]
    assert float(w_mse(torch.stack([z, -z]), per_view=True, groups=2)["w_mse"]) == pytest.approx(4)
    assert float(w_mse(torch.stack([z, z]), per_view=True, groups=2)["w_mse"]) == pytest.approx(0)


def test_gradient_and_a_batch_that_is_too_small() -> None:
    z = random_views(8, 2).requires_grad_()
    order = torch.tensor([3, 1, 0, 7, 5, 2, 4, 6])
    assert torch.autograd.gradcheck(
        lambda z: w_mse(z, per_view=True, groups=2, order=order)["w_mse"], z
    )
    method = build("w_mse", projector=(8, 16), group=128)
    with pytest.raises(NonegError, match="needs more embeddings than coordinates, not 12 and 16"):
        method.objective(Embeddings(h=torch.randn(2, 12, 16), z=torch.randn(2, 12, 16)))
