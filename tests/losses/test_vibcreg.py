"""VIbCReg against its formula in float64, closed forms, invariances, gradients."""

import numpy as np
import pytest
import torch
from torch import Tensor

from noneg.losses import vibcreg, vicreg


def random_views(batch: int, width: int, views: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(views, batch, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("batch", "width"), [(2, 1), (3, 8), (8, 3), (5, 5)])
@pytest.mark.parametrize("views", [2, 3])
def test_vibcreg_is_the_papers(batch: int, width: int, views: int) -> None:
    """Correlations by numpy; the terms of two views are added."""
    z = 0.6 * random_views(batch, width, views).numpy() + 4
    pairs = [(a, b) for a in range(views) for b in range(a + 1, views)]
    expected = {"invariance": 25 * np.mean([((z[a] - z[b]) ** 2).mean() for a, b in pairs])}
    for number, view in enumerate(z, start=1):
        hinge = np.maximum(0, 1 - np.sqrt(view.var(axis=0, ddof=1) + 1e-4)).mean()
        correlations = np.atleast_2d(np.corrcoef(view.T))
        off = (correlations**2).sum() - width
        expected[f"variance_{number}"] = 25 * 2 / views * hinge
        expected[f"covariance_{number}"] = 200 * 2 / views * off / width**2
    actual = vibcreg(torch.from_numpy(z))
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert float(actual[name]) == pytest.approx(float(value), rel=1e-9, abs=1e-10), name


def test_zeros_tell_the_convention_and_copies_cost_the_most() -> None:
    assert float(sum(vibcreg(torch.zeros(2, 8, 4)).values())) == pytest.approx(49.5)
    copies = random_views(9, 1).repeat(1, 1, 5)
    assert float(vibcreg(copies)["covariance_1"]) == pytest.approx(200 * (1 - 1 / 5))


def test_correlations_ignore_scale_and_shift_of_each_coordinate_as_vicreg_does_not() -> None:
    z = random_views(9, 4)
    moved = z * torch.tensor([1, 2, 30, 0.1]) + torch.arange(4)
    assert float(vibcreg(moved)["covariance_1"]) == pytest.approx(float(vibcreg(z)["covariance_1"]))
    assert float(vicreg(moved)["covariance_1"]) != pytest.approx(float(vicreg(z)["covariance_1"]))


def test_large_means_keep_their_digits_in_float32() -> None:
    z = (random_views(20, 30) + 1000).float()
    truth = vibcreg(z.double())
    for name, value in vibcreg(z).items():
        assert float(value) == pytest.approx(float(truth[name]), rel=1e-4), name


@pytest.mark.parametrize(("batch", "width"), [(6, 3), (4, 6)])
def test_gradient(batch: int, width: int) -> None:
    z = (0.3 * random_views(batch, width, 3)).requires_grad_()
    for name in vibcreg(z):
        assert torch.autograd.gradcheck(lambda z, name=name: vibcreg(z)[name], z), name
