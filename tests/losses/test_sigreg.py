"""SIGReg: the authors' sum over knots, Monte Carlo, closed forms, invariances, gradients."""

from math import pi, sqrt

import numpy as np
import pytest
import torch
from scipy.special import gammaincinv, hyp1f1
from torch import Tensor

from noneg.losses import distance_to_mean, mean_squared_error, sigreg
from noneg.losses.sigreg import squared_cosines

COLLAPSED = sqrt(2 * pi) - 2 * sqrt(pi) + sqrt(2 * pi / 3)


def random_views(batch: int, width: int, views: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(views, batch, width, generator=generator, dtype=torch.float64)


def epps_pulley(y: np.ndarray) -> np.ndarray:
    """The integral by trapezoids, for the projections [batch, directions]."""
    t = np.linspace(-7, 7, 57)
    characteristic = np.exp(1j * y[:, :, None] * t).mean(axis=0)
    gaussian = np.exp(-(t**2) / 2)
    return np.trapezoid(np.abs(characteristic - gaussian) ** 2 * gaussian, t, axis=1)


@pytest.mark.parametrize(("batch", "width"), [(1, 1), (2, 1), (7, 2), (5, 3), (6, 20)])
def test_the_closed_form_is_the_mean_over_directions(batch: int, width: int) -> None:
    """On a circle and a line the mean is exact; else, 4,000 directions have some noise."""
    z = random_views(batch, width, views=1)[0].numpy() * 1.3 + 0.2
    if width == 1:
        directions = np.ones((1, 1))
    elif width == 2:
        angles = np.linspace(0, pi, 400, endpoint=False)
        directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    else:
        directions = np.random.default_rng(0).standard_normal((4000, width))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    each = epps_pulley(z @ directions.T)
    actual = float(sigreg(torch.from_numpy(z)[None]))
    tolerance = 1e-9 if width <= 2 else 4 * float(each.std()) / sqrt(len(each))
    assert abs(actual - float(each.mean())) < tolerance


@pytest.mark.parametrize("width", [1, 2, 3, 16, 128, 2048])
def test_the_kernel_is_kummers_function(width: int) -> None:
    nodes, weights = squared_cosines(width)
    # Exactly Gaussian embeddings have s = width on average; 30 times as much is far off.
    for share, tolerance in ((0.0, 1e-12), (0.1, 1e-11), (1.0, 1e-11), (4.0, 1e-11), (30.0, 1e-6)):
        s = share * width
        expected = np.exp(-s) if width == 1 else hyp1f1(0.5, width / 2, -s)
        actual = float(np.dot(weights, np.exp(-s * np.array(nodes))))
        assert actual == pytest.approx(float(expected), abs=tolerance)


@pytest.mark.parametrize("views", [1, 3])
def test_slices_are_the_authors(views: int) -> None:
    """The minimal example: 17 knots on [0, 3], doubled; divided by its factor n."""
    z = random_views(9, 4, views)
    torch.manual_seed(5)
    actual = sigreg(z, slices=6, reach=3.0)
    torch.manual_seed(5)
    directions = torch.randn(4, 6, dtype=torch.float64).numpy()
    directions /= np.linalg.norm(directions, axis=0)
    t = np.linspace(0, 3, 17)
    weights = np.full(17, 2 * t[1])
    weights[[0, -1]] = t[1]
    values = []
    for view in z.numpy():
        for direction in directions.T:
            turned = np.outer(view @ direction, t)
            error = (np.cos(turned).mean(axis=0) - np.exp(-(t**2) / 2)) ** 2
            error += np.sin(turned).mean(axis=0) ** 2
            values.append((error * weights * np.exp(-(t**2) / 2)).sum())
    assert float(actual) == pytest.approx(float(np.mean(values)), rel=1e-12)


def test_slices_converge_to_the_closed_form() -> None:
    """They are right on average, and four times as many have half the noise."""
    z = random_views(30, 12)
    torch.manual_seed(0)
    few, many = (torch.stack([sigreg(z, slices=count) for _ in range(200)]) for count in (10, 40))
    for values in (few, many):
        assert abs(float(values.mean() - sigreg(z))) < 4 * float(values.std()) / sqrt(200)
    assert float(many.std() / few.std()) == pytest.approx(0.5, rel=0.25)
    assert float(many.std()) < 0.2 * float(many.mean())


GAUSSIAN = sqrt(2 * pi) * (1 - 1 / sqrt(3))


@pytest.mark.parametrize("width", [1, 2, 3, 50])
def test_one_image_of_a_gaussian_has_the_same_value_in_every_width(width: int) -> None:
    """E[T] = sqrt(2 pi) (1 - 1 / sqrt(3)) = 1.0594. T depends on the length, given by quantiles."""
    lengths = np.sqrt(2 * gammaincinv(width / 2, (np.arange(50) + 0.5) / 50))
    z = torch.zeros(50, 1, width, dtype=torch.float64)
    z[:, 0, 0] = torch.from_numpy(lengths)
    assert float(sigreg(z)) == pytest.approx(GAUSSIAN, rel=2e-3)


@pytest.mark.parametrize(("batch", "width", "draws"), [(20, 48, 80), (60, 128, 40)])
def test_a_gaussian_has_the_same_value_in_every_batch(batch: int, width: int, draws: int) -> None:
    # In fewer dimensions, so few draws would have more noise than 1 %.
    value = float(sigreg(random_views(batch, width, draws))) * batch
    assert value == pytest.approx(GAUSSIAN, rel=0.025)


def test_zeros_and_points_far_away() -> None:
    assert pytest.approx(0.408923, abs=1e-6) == COLLAPSED
    z = torch.zeros(2, 5, 7, dtype=torch.float64, requires_grad=True)
    value = sigreg(z)
    value.backward()
    assert float(value.detach()) == pytest.approx(COLLAPSED, abs=1e-12)
    assert z.grad is not None
    assert not z.grad.any()
    torch.manual_seed(0)
    sliced = float(sigreg(torch.zeros(1, 5, 7), slices=3, reach=3.0))
    assert sliced == pytest.approx(0.40205, abs=1e-5)
    # Only each embedding's pair with itself is left.
    far = 1e6 * torch.eye(5, dtype=torch.float64)[None]
    expected = sqrt(2 * pi) / 5 + sqrt(2 * pi / 3)
    assert float(sigreg(far)) == pytest.approx(expected, abs=1e-2)


@pytest.mark.parametrize("rank", [8, 32])
def test_dead_directions_cost_what_the_method_says(rank: int) -> None:
    """0.2412 (1 / r - 1 / d) above a Gaussian, at the same total variance."""
    width, batch = 64, 1000
    z = random_views(batch, width, 1)
    flat = z.clone()
    flat[:, :, rank:] = 0
    flat *= sqrt(width / rank)
    excess = float(sigreg(flat) - sigreg(z))
    assert excess == pytest.approx(0.2412 * (1 / rank - 1 / width), rel=0.1)


def test_rotation_order_and_mirror_change_nothing_but_scale_and_shift_do() -> None:
    z = random_views(8, 5)
    rotation = torch.linalg.qr(random_views(5, 5, seed=1)[0])[0]
    exact = float(sigreg(z))
    for same in (z @ rotation, -z, z.flip(0), z.flip(1)):
        assert float(sigreg(same)) == pytest.approx(exact, rel=1e-11)
    for other in (2 * z, z + 1):
        assert abs(float(sigreg(other)) - exact) > 0.01


def test_float32_keeps_digits_of_the_small_difference() -> None:
    z = random_views(256, 64).float()
    assert float(sigreg(z)) == pytest.approx(float(sigreg(z.double())), rel=1e-4)
    assert float(sigreg(z.bfloat16())) == float(sigreg(z.bfloat16().float()))


@pytest.mark.parametrize(("batch", "width"), [(1, 3), (5, 1), (4, 2), (3, 6)])
def test_gradient(batch: int, width: int) -> None:
    z = random_views(batch, width).requires_grad_()
    assert torch.autograd.gradcheck(sigreg, z)

    def sliced(z: Tensor) -> Tensor:
        torch.manual_seed(0)
        return sigreg(z, slices=4)

    assert torch.autograd.gradcheck(sliced, z)


@pytest.mark.parametrize("views", [2, 3, 5])
def test_distance_to_the_mean_is_that_between_views(views: int) -> None:
    z = random_views(4, 3, views)
    expected = np.mean([(view - z.numpy().mean(axis=0)) ** 2 for view in z.numpy()])
    assert float(distance_to_mean(z)) == pytest.approx(float(expected))
    factor = (views - 1) / (2 * views)
    assert float(distance_to_mean(z)) == pytest.approx(factor * float(mean_squared_error(z)))
