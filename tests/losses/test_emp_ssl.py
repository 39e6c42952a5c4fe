"""EMP-SSL against its formula in float64, limits, invariances, gradients."""

from math import log

import numpy as np
import pytest
import torch
from torch import Tensor

from noneg.losses import emp_ssl


def random_views(batch: int, width: int, views: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(views, batch, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("batch", "width"), [(2, 2), (3, 8), (8, 3)])
@pytest.mark.parametrize("views", [2, 5])
def test_emp_ssl_is_the_papers(batch: int, width: int, views: int) -> None:
    """Patch by patch; the coding rate by a determinant."""
    z = random_views(batch, width, views).numpy()
    unit = z / np.linalg.norm(z, axis=2, keepdims=True)
    mean = unit.mean(axis=0)
    cosines = [
        unit[v, i] @ mean[i] / np.linalg.norm(mean[i]) for v in range(views) for i in range(batch)
    ]
    rates = [
        0.5 * np.log(np.linalg.det(np.eye(width) + width / (batch * 0.2) * view.T @ view))
        for view in unit
    ]
    terms = emp_ssl(torch.from_numpy(z), invariance=7.0)
    assert float(terms["invariance"]) == pytest.approx(-7 * float(np.mean(cosines)), rel=1e-10)
    assert float(terms["coding_rate"]) == pytest.approx(-float(np.mean(rates)), rel=1e-10)


@pytest.mark.parametrize(("batch", "width"), [(4, 8), (12, 4)])
def test_identical_views_of_orthogonal_images_are_the_least(batch: int, width: int) -> None:
    rows = torch.eye(width, dtype=torch.float64).repeat(3, 1)[:batch].expand(3, batch, width)
    terms = emp_ssl(rows, invariance=2.0)
    least = min(batch, width)
    assert float(terms["invariance"]) == pytest.approx(-2)
    assert float(terms["coding_rate"]) == pytest.approx(-least / 2 * log(1 + width / least / 0.2))
    point = emp_ssl(rows[:, :1].expand(3, batch, width))["coding_rate"]
    assert float(point) == pytest.approx(-0.5 * log(1 + width / 0.2))


def test_length_and_rotation_change_nothing() -> None:
    z = random_views(6, 4, 3)
    rotation = torch.linalg.qr(random_views(4, 4, seed=1)[0])[0]
    for other in (3 * z, z @ rotation, z.flip(0)):
        for name, value in emp_ssl(other).items():
            assert float(value) == pytest.approx(float(emp_ssl(z)[name])), name


@pytest.mark.parametrize(("batch", "width"), [(5, 3), (3, 5)])
def test_gradient(batch: int, width: int) -> None:
    z = random_views(batch, width, 3).requires_grad_()
    for name in ("invariance", "coding_rate"):
        assert torch.autograd.gradcheck(lambda z, name=name: emp_ssl(z)[name], z)
