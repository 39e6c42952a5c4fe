"""VISReg against its formula in float64, closed forms, invariances, gradients."""

from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import Tensor

from noneg.losses import visreg


def random_views(batch: int, width: int, views: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(views, batch, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("batch", "width"), [(2, 1), (3, 8), (8, 3)])
@pytest.mark.parametrize("views", [2, 3])
def test_visreg_is_the_papers(batch: int, width: int, views: int) -> None:
    z = random_views(batch, width, views) * 1.5 + 0.3
    torch.manual_seed(3)
    actual = visreg(z, slices=5)
    torch.manual_seed(3)
    directions = torch.randn(width, 5, dtype=torch.float64).numpy()
    directions /= np.linalg.norm(directions, axis=0)
    quantiles = [NormalDist().inv_cdf(i / (batch + 1)) for i in range(1, batch + 1)]
    rows: dict[str, list[float]] = {"center": [], "scale": [], "shape": []}
    for view in z.numpy():
        mean, deviation = view.mean(axis=0), view.std(axis=0) + 1e-6
        rows["center"].append((mean**2).mean())
        rows["scale"].append(((deviation - 1) ** 2).mean())
        for direction in directions.T:
            sorted_ones = sorted((view - mean) / deviation @ direction)
            rows["shape"].append(((np.array(sorted_ones) - quantiles) ** 2).mean())
    expected = {name: 0.9 * np.mean(values) for name, values in rows.items()}
    expected["invariance"] = 0.1 * ((z.numpy() - z.numpy().mean(axis=0)) ** 2).mean()
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert float(actual[name]) == pytest.approx(float(value), rel=1e-8), name


def test_zeros_and_what_is_near_them() -> None:
    """The scale is 1, and keeps its slope of -2 near a collapse; at it, there is no direction."""
    z = torch.zeros(2, 6, 3, dtype=torch.float64, requires_grad=True)
    scale = visreg(z, scale=1.0, slices=4)["scale"]
    assert float(scale.detach()) == pytest.approx(1, abs=1e-5)
    assert not torch.autograd.grad(scale, z)[0].any()
    spread = random_views(6, 3)
    spread = (spread - spread.mean(dim=1, keepdim=True)) / spread.std(dim=1, correction=0)[:, None]
    values = [float(visreg(size * spread, scale=1.0, slices=4)["scale"]) for size in (1e-3, 2e-3)]
    assert (values[1] - values[0]) / 1e-3 == pytest.approx(-2, rel=0.01)


def test_dead_directions_cost_half_of_their_share() -> None:
    """About (1 / r - 1 / d) / 2 above a Gaussian, whatever the batch."""
    torch.manual_seed(0)
    z = random_views(2000, 32, 1).expand(2, -1, -1)
    mixed = z[:, :, :4] @ torch.linalg.qr(random_views(32, 4, 1, seed=1)[0])[0].T
    shapes = [float(visreg(each, shape=1.0, slices=500)["shape"]) for each in (z, mixed)]
    assert shapes[1] - shapes[0] == pytest.approx((1 / 4 - 1 / 32) / 2, rel=0.3)


@pytest.mark.parametrize("batch", [3, 7, 50])
def test_the_quantiles_of_a_gaussian_have_the_least_shape(batch: int) -> None:
    """Their deviation s is below 1, and they are divided by it: (1 - s)^2 is left."""
    quantiles = [NormalDist().inv_cdf(i / (batch + 1)) for i in range(1, batch + 1)]
    floor = (1 - float(np.std(quantiles))) ** 2
    order = torch.randperm(batch, generator=torch.Generator().manual_seed(0))
    z = torch.tensor(quantiles, dtype=torch.float64)[order, None].expand(2, -1, -1)
    for same in (z, -z, 30 * z + 2):
        value = float(visreg(same, shape=0.7, slices=2)["shape"])
        assert value == pytest.approx(0.7 * floor, rel=1e-4)
    for seed in range(10):
        other = random_views(batch, 1, seed=seed)
        assert float(visreg(other, shape=1.0, slices=2)["shape"]) > 1.01 * floor


def test_shape_ignores_scale_and_shift_of_each_coordinate() -> None:
    z = random_views(9, 3)
    moved = z * torch.tensor([1, 2, 30]) + torch.arange(3)
    values = []
    for each in (z, moved):
        torch.manual_seed(0)
        values.append(float(visreg(each, slices=6)["shape"]))
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_gradient() -> None:
    """The deviation is a constant in the shape, so differences are taken at that constant."""
    z = random_views(6, 3).requires_grad_()

    def terms(z: Tensor) -> dict[str, Tensor]:
        torch.manual_seed(0)
        return visreg(z, slices=4)

    for name in ("invariance", "center", "scale"):
        assert torch.autograd.gradcheck(lambda z, name=name: terms(z)[name], z)
    (gradient,) = torch.autograd.grad(terms(z)["shape"], z)
    constant = z.detach().std(dim=1, correction=0, keepdim=True) + 1e-6
    torch.manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(3, 4, dtype=torch.float64), dim=0)
    order = ((z - z.mean(dim=1, keepdim=True)) / constant @ directions).sort(dim=1).values
    quantiles = torch.special.ndtri(torch.arange(1, 7, dtype=torch.float64) / 7)[:, None]
    (expected,) = torch.autograd.grad(0.9 * (order - quantiles).square().mean(), z)
    torch.testing.assert_close(gradient, expected)
