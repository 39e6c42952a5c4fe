"""TwoNN on manifolds of known dimension."""

import math

import numpy as np
import pytest
import torch

from noneg.diagnostics import distances, two_nn_dimension


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plainly(z: torch.Tensor) -> float:
    points = z.double().numpy()
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    distances.sort(axis=1)
    x = np.sort(np.log(distances[:, 2] / distances[:, 1]))
    kept = int(0.9 * len(x))
    y = -np.log(1 - np.arange(1, kept + 1) / len(x))
    return float(np.linalg.lstsq(x[:kept, None], y, rcond=None)[0][0])


@pytest.mark.parametrize(("images", "width"), [(10, 3), (57, 5), (40, 90)])
def test_agreement_with_plain_numpy(images: int, width: int) -> None:
    z = torch.randn(images, width, generator=generator(), dtype=torch.float64) + 10
    assert two_nn_dimension(z) == pytest.approx(plainly(z), rel=1e-8)
    assert two_nn_dimension(z.float()) == pytest.approx(plainly(z), rel=1e-3)


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_cubes_that_are_embedded_linearly(dimension: int) -> None:
    cube = torch.rand(2000, dimension, generator=generator())
    frame = torch.linalg.qr(torch.randn(40, dimension, generator=generator(1))).Q
    # The standard error is d / sqrt(N), about 2 %.
    assert two_nn_dimension(cube @ frame.T) == pytest.approx(dimension, rel=0.1)


def test_a_curved_surface_has_the_dimension_of_the_surface() -> None:
    sphere = torch.nn.functional.normalize(torch.randn(2000, 3, generator=generator()), dim=1)
    assert two_nn_dimension(sphere) == pytest.approx(2, rel=0.1)


def test_rotation_scale_shift_and_order_do_not_matter() -> None:
    z = torch.rand(200, 4, generator=generator(), dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=generator(1), dtype=torch.float64)).Q
    order = torch.randperm(200, generator=generator(2))
    moved = 1e-3 * (z[order] @ rotation) + 1
    assert two_nn_dimension(moved) == pytest.approx(two_nn_dimension(z), rel=1e-6)


def test_duplicates_are_dropped() -> None:
    z = torch.rand(100, 4, generator=generator())
    order = torch.randperm(230, generator=generator(1))
    repeated = torch.cat([z, z, z[:30]])[order]
    assert two_nn_dimension(repeated) == pytest.approx(two_nn_dimension(z), rel=1e-9)
    last_bit = torch.cat([z, z * (1 + 2.0**-23)])
    assert two_nn_dimension(last_bit) == pytest.approx(two_nn_dimension(z), rel=1e-4)


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    z = torch.rand(100, 4, generator=generator())
    repeated = torch.cat([z, z[:30]])
    before = two_nn_dimension(repeated)
    monkeypatch.setattr(distances, "BLOCK", 7)
    assert two_nn_dimension(repeated) == pytest.approx(before, rel=1e-12)


def test_nan_where_it_cannot_be_had() -> None:
    z = torch.rand(10, 3, generator=generator())
    assert math.isfinite(two_nn_dimension(z))
    assert math.isnan(two_nn_dimension(z[:9]))
    assert math.isnan(two_nn_dimension(z[:9].repeat(5, 1)))
    assert math.isnan(two_nn_dimension(torch.ones(50, 3)))
    assert math.isnan(two_nn_dimension(torch.zeros(50, 3)))
    # The corners of a simplex: every ratio is 1.
    assert math.isnan(two_nn_dimension(torch.eye(20)))
    z[3, 1] = math.nan
    assert math.isnan(two_nn_dimension(z))
