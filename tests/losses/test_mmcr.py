"""MMCR against singular values in float64: its bound, invariances, and the gradient."""

from math import sqrt

import numpy as np
import pytest
import torch
from torch import Tensor

from noneg.losses import mmcr


def random_views(batch: int, width: int, views: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(views, batch, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("batch", "width"), [(2, 1), (3, 8), (8, 3), (5, 5)])
@pytest.mark.parametrize("views", [2, 4])
def test_mmcr_is_the_papers(batch: int, width: int, views: int) -> None:
    z = random_views(batch, width, views).numpy()
    unit = z / np.linalg.norm(z, axis=2, keepdims=True)
    centroids = np.linalg.svd(unit.mean(axis=0), compute_uv=False).sum()
    local = np.mean([np.linalg.svd(unit[:, i], compute_uv=False).sum() for i in range(batch)])
    terms = mmcr(torch.from_numpy(z), local=0.3)
    assert float(terms["centroids"]) == pytest.approx(-float(centroids), rel=1e-8)
    assert float(terms["local"]) == pytest.approx(0.3 * float(local), rel=1e-8)
    assert mmcr(torch.from_numpy(z)).keys() == {"centroids"}


@pytest.mark.parametrize(("batch", "width"), [(4, 9), (12, 4)])
def test_the_bound_is_attained_by_orthogonal_centroids(batch: int, width: int) -> None:
    """Orthonormal rows; or, with more images than coordinates, each axis as often."""
    rows = torch.eye(width, dtype=torch.float64).repeat(3, 1)[:batch]
    value = float(mmcr(rows.expand(2, batch, width))["centroids"])
    assert value == pytest.approx(-sqrt(batch * min(batch, width)))
    z = random_views(batch, width)
    assert value < float(mmcr(z)["centroids"]) < 0
    # Views that do not agree have short centroids.
    opposite = torch.stack([rows, -rows])
    assert float(mmcr(opposite)["centroids"]) == pytest.approx(0, abs=1e-9)


def test_a_point_has_the_norm_of_one_direction_and_a_finite_gradient() -> None:
    z = random_views(1, 5, 1).expand(2, 9, 5).clone().requires_grad_()
    value = mmcr(z)["centroids"]
    assert float(value.detach()) == pytest.approx(-3)
    (gradient,) = torch.autograd.grad(value, z)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(("batch", "width"), [(6, 3), (3, 6)])
def test_the_gradient_is_the_polar_factor(batch: int, width: int) -> None:
    """The slope along dC is <U V', dC>; and finite differences."""
    z = random_views(batch, width).requires_grad_()
    unit = torch.nn.functional.normalize(z, dim=2)
    U, _, Vh = torch.linalg.svd(unit.mean(dim=0).detach(), full_matrices=False)
    (expected,) = torch.autograd.grad(-(unit.mean(dim=0) * (U @ Vh)).sum(), z)
    (actual,) = torch.autograd.grad(mmcr(z)["centroids"], z)
    torch.testing.assert_close(actual, expected, rtol=1e-7, atol=1e-9)
    assert torch.autograd.gradcheck(lambda z: mmcr(z, local=0.5)["local"], z)


def test_length_rotation_and_order_change_nothing() -> None:
    z = random_views(6, 4, 3)
    rotation = torch.linalg.qr(random_views(4, 4, seed=1)[0])[0]
    expected = float(mmcr(z)["centroids"])
    for same in (5 * z, z @ rotation, z.flip(0), z.flip(1)):
        assert float(mmcr(same)["centroids"]) == pytest.approx(expected)


def test_float32_and_bfloat16() -> None:
    z = random_views(40, 20).float()
    truth = float(mmcr(z.double())["centroids"])
    assert float(mmcr(z)["centroids"]) == pytest.approx(truth, rel=1e-6)
    rounded = z.bfloat16()
    assert torch.equal(mmcr(rounded)["centroids"], mmcr(rounded.float())["centroids"])
