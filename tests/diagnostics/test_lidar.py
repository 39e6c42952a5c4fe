"""LiDAR against plain NumPy, and cases whose value is known."""

import math

import numpy as np
import pytest
import torch
from constructed import with_singular_values

from noneg.diagnostics import effective_rank, lidar


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plainly(views: torch.Tensor, delta: float = 1e-4) -> float:
    z = views.double().numpy()
    count, images, width = z.shape
    means = z.mean(axis=0)
    between = np.zeros((width, width))
    within = delta * np.eye(width)
    for i in range(images):
        away = means[i] - means.mean(axis=0)
        between += np.outer(away, away) / (images - 1)
        for v in range(count):
            away = z[v, i] - means[i]
            within += np.outer(away, away) / (images * (count - 1))
    values, vectors = np.linalg.eigh(within)
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    share = np.linalg.eigvalsh(root @ between @ root)
    share = share[share > 1e-9 * share[-1]]
    share = share / share.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


@pytest.mark.parametrize(
    ("count", "images", "width"),
    [
        (2, 40, 8),
        (5, 12, 30),
        (2, 12, 30),
        (3, 10, 19),
        (3, 10, 20),
        (3, 10, 21),
        (4, 3, 50),
        (2, 2, 1),
    ],
)
@pytest.mark.parametrize("scale", [1.0, 0.03])
def test_agreement_with_plain_numpy(count: int, images: int, width: int, scale: float) -> None:
    spectrum = torch.linspace(1, 4, width, dtype=torch.float64)
    views = scale * (random(images, width) * spectrum + 0.5 * random(count, images, width, seed=1))
    assert lidar(views) == pytest.approx(plainly(views), rel=1e-6)
    assert lidar(views, delta=0.1) == pytest.approx(plainly(views, 0.1), rel=1e-6)
    assert lidar(views.float()) == pytest.approx(plainly(views), rel=1e-3)


@pytest.mark.parametrize(("images", "width"), [(60, 20), (20, 60)])
@pytest.mark.parametrize("k", [1, 3, 7])
def test_views_that_agree_and_k_equal_directions_count_k(images: int, width: int, k: int) -> None:
    # Within images there is only delta: the matrix is the covariance of the means over delta.
    z = with_singular_values([1.0] * k, images, width, centered=True)
    assert lidar(z.expand(4, images, width)) == pytest.approx(k, rel=1e-6)


def test_balanced_classes_that_separate_perfectly_have_full_rank() -> None:
    # A regular simplex of images: N - 1 equal eigenvalues, whatever isotropic noise the views add.
    images, count = 8, 6
    corners = torch.eye(images, dtype=torch.float64)
    assert lidar(corners.expand(count, images, images)) == pytest.approx(images - 1, rel=1e-6)


def test_noise_between_views_is_discounted_where_the_plain_rank_counts_it() -> None:
    images, width, count = 300, 30, 20
    signal = torch.zeros(images, width, dtype=torch.float64)
    signal[:, :5] = random(images, 5)
    noise = random(count, images, width, seed=1)
    noise[..., :5] *= 0.1
    views = signal + noise
    assert lidar(views) < 6
    assert effective_rank(views[0]) > 20


def test_order_of_images_and_of_views_and_rotations_do_not_matter() -> None:
    for width in (8, 50):
        views = random(10, width) + 0.3 * random(3, 10, width, seed=1)
        order = torch.randperm(10, generator=torch.Generator().manual_seed(2))
        rotation = torch.linalg.qr(random(width, width, seed=3)).Q
        moved = views.flip(0)[:, order] @ rotation + random(width, seed=4)
        assert lidar(moved) == pytest.approx(lidar(views), rel=1e-6)
        # Images are the classes: another pairing of the views gives another number.
        mixed = torch.stack([views[0], views[1].roll(1, 0), views[2].roll(2, 0)])
        assert lidar(mixed) != pytest.approx(lidar(views), rel=1e-2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_collapsed_embeddings_have_rank_one(dtype: torch.dtype) -> None:
    direction = (random(16) + 3).to(dtype)
    for views in (direction.expand(2, 40, 16), torch.zeros(2, 40, 16, dtype=dtype)):
        assert lidar(views) == 1
    generator = torch.Generator().manual_seed(1)
    last_bits = 1 + torch.randint(-1, 2, (3, 40, 16), generator=generator) * torch.finfo(dtype).eps
    noisy = (direction * last_bits).to(dtype)
    assert lidar(noisy) == 1
    # Different images whose views agree except for rounding are not a collapse.
    assert lidar((noisy * random(40, 16)).to(dtype)) > 5


@pytest.mark.parametrize("scale", [1e-12, 1e6, 1e12])
def test_extreme_scales_do_not_fail(scale: float) -> None:
    for width in (4, 60):
        value = lidar(scale * (random(10, width) + 0.3 * random(3, 10, width, seed=1)))
        assert 1 <= value <= 9 + 1e-6
        # Views that differ in only one direction: the covariance within images is singular.
        along = scale * random(3, 10, 1, seed=1) * random(width, seed=2)
        value = lidar(scale * random(10, width) + along)
        assert 1 <= value <= 9 + 1e-6


def test_nan_where_a_number_would_mean_nothing() -> None:
    assert math.isnan(lidar(random(1, 5, 3)))
    assert math.isnan(lidar(random(3, 1, 3)))
    bad = random(2, 5, 3)
    bad[1, 2, 1] = math.nan
    assert math.isnan(lidar(bad))
