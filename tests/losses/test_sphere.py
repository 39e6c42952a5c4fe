"""Uniformity on the sphere: the kernel over pairs, closed forms, invariances, gradients."""

from math import sqrt

import numpy as np
import pytest
import torch
from scipy.special import eval_gegenbauer
from test_contract import BATCH, build, make_views, train_briefly
from torch import Tensor

from noneg.diagnostics import effective_rank, normalized_std
from noneg.losses import distance_to_mean, sphere_discrepancy
from noneg.methods.base import Embeddings


def random_views(batch: int, width: int, views: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(views, batch, width, generator=generator, dtype=torch.float64)


def harmonics(width: int, degree: int) -> int:
    """How many harmonics of this degree there are on the sphere in `width` dimensions."""
    return width if degree == 1 else (width + 2) * (width - 1) // 2


@pytest.mark.parametrize(("batch", "width"), [(1, 3), (6, 3), (4, 9), (5, 5)])
def test_it_is_the_mean_of_the_kernel_over_all_pairs(batch: int, width: int) -> None:
    """Gegenbauer polynomials, scaled so that a point and itself have the number of harmonics."""
    z = random_views(batch, width)
    values = []
    for view in z.numpy():
        unit = view / np.linalg.norm(view, axis=1, keepdims=True)
        kernel = np.zeros((batch, batch))
        for degree in (1, 2):
            shape = eval_gegenbauer(degree, width / 2 - 1, unit @ unit.T)
            at_one = eval_gegenbauer(degree, width / 2 - 1, 1.0)
            kernel += harmonics(width, degree) * shape / at_one
        values.append(kernel.mean() / (harmonics(width, 1) + harmonics(width, 2)))
    assert float(sphere_discrepancy(z)) == pytest.approx(float(np.mean(values)), rel=1e-10)


@pytest.mark.parametrize("width", [2, 7])
def test_a_collapse_is_1_and_a_basis_with_its_negatives_0(width: int) -> None:
    point = random_views(1, width)[:1].expand(2, 9, width)
    assert float(sphere_discrepancy(point)) == pytest.approx(1)
    basis = torch.eye(width, dtype=torch.float64)
    assert float(sphere_discrepancy(torch.cat([basis, -basis])[None])) == pytest.approx(
        0, abs=1e-15
    )
    # The mean of the basis alone has length 1 / sqrt(width).
    total = width + (width + 2) * (width - 1) / 2
    assert float(sphere_discrepancy(basis[None])) == pytest.approx(1 / total)


def test_uniform_embeddings_have_one_over_the_batch_and_dead_directions_cost_their_share() -> None:
    z = random_views(20, 6, 400)
    values = torch.stack([sphere_discrepancy(view[None]) for view in z])
    error = float(values.std()) / sqrt(400)
    assert abs(float(values.mean()) - 1 / 20) < 4 * error < 0.01
    basis = torch.eye(64, dtype=torch.float64)[:16]
    share = float(sphere_discrepancy(torch.cat([basis, -basis])[None]))
    assert share == pytest.approx(1 / 16 - 1 / 64, rel=0.02)


@pytest.mark.parametrize(("batch", "width"), [(4, 9), (9, 4)])
def test_rotation_length_order_and_mirror_change_nothing(batch: int, width: int) -> None:
    z = random_views(batch, width)
    rotation = torch.linalg.qr(random_views(width, width, seed=1)[0])[0]
    lengths = 0.1 + random_views(batch, 1).abs()
    exact = float(sphere_discrepancy(z))
    for same in (z @ rotation, -z, z.flip(1), z * lengths):
        assert float(sphere_discrepancy(same)) == pytest.approx(exact, rel=1e-11)
    assert abs(float(sphere_discrepancy(z + 1)) - exact) > 0.01
    # Embeddings that appear twice, in more or fewer images than coordinates, or with coordinates
    # of zeros: the other Gram matrix is then the smaller one.
    assert float(sphere_discrepancy(z.repeat(1, 5, 1))) == pytest.approx(exact, rel=1e-10)
    assert float(sphere_discrepancy(z.float())) == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize(("batch", "width"), [(1, 3), (5, 2), (3, 6)])
def test_gradient(batch: int, width: int) -> None:
    z = random_views(batch, width).requires_grad_()
    assert torch.autograd.gradcheck(sphere_discrepancy, z)


def test_lejepa_on_the_sphere_does_not_see_lengths() -> None:
    method = build("lejepa", statistic="sphere", sigreg=2.0)
    z = random_views(8, 5, 3)
    unit = z / z.norm(dim=2, keepdim=True)
    terms = method.objective(Embeddings(h=z, z=3 * z, t=z[:2])).terms
    assert terms.keys() == {"invariance", "sphere"}
    expected = 0.98 * 5 * distance_to_mean(unit, large=2)
    torch.testing.assert_close(terms["invariance"], expected)
    torch.testing.assert_close(terms["sphere"], 2 * sphere_discrepancy(z))


def test_lejepa_on_the_sphere_keeps_its_rank_and_without_the_statistic_does_not() -> None:
    spread = {}
    for weight in (2.5, 0.0):
        method = build("lejepa", statistic="sphere", sigreg=weight)
        train_briefly(method, 60)
        z = method.embed(make_views(seed=60)).z[0].detach()
        spread[weight] = normalized_std(z), effective_rank(z)
    assert spread[2.5][0] > 0.5 > 0.2 > spread[0.0][0]
    assert spread[2.5][1] > BATCH / 3
