"""The meters of distances and angles, against closed forms and plain NumPy."""

import math

import numpy as np
import pytest
import torch
from scipy.special import ive, loggamma

from noneg.diagnostics import (
    alignment,
    distances,
    mean_cosine,
    mean_norm,
    self_clustering,
    uniformity,
    view_retrieval,
)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def units(z: torch.Tensor) -> np.ndarray:
    plain = z.double().numpy()
    return plain / np.linalg.norm(plain, axis=-1, keepdims=True)


@pytest.mark.parametrize(("images", "width"), [(30, 7), (9, 40), (2, 3)])
def test_agreement_with_plain_numpy(images: int, width: int) -> None:
    views = random(3, images, width).exp()
    u = units(views)
    first = u[0]
    others = ~np.eye(images, dtype=bool)
    cosines = first @ first.T
    distances = ((first[:, None] - first[None]) ** 2).sum(axis=2)
    expected = images + images * (images - 1) / width
    pairs = [((u[a] - u[b]) ** 2).sum(axis=1).mean() for a in range(3) for b in range(a)]
    right = [(first @ u[v].T).argmax(axis=1) == np.arange(images) for v in (1, 2)]

    z = views[0]
    assert mean_norm(z) == pytest.approx(np.linalg.norm(z.numpy(), axis=1).mean())
    assert mean_cosine(z) == pytest.approx(cosines[others].mean(), abs=1e-12)
    assert uniformity(z) == pytest.approx(np.log(np.exp(-2 * distances[others]).mean()))
    assert uniformity(z, t=5.0) == pytest.approx(np.log(np.exp(-5 * distances[others]).mean()))
    assert self_clustering(z) == pytest.approx(
        ((cosines**2).sum() - expected) / (images**2 - expected)
    )
    assert alignment(views) == pytest.approx(np.mean(pairs))
    assert view_retrieval(views) == pytest.approx(np.mean(right))


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    z, views = random(25, 6), random(25, 6) + 0.7 * random(2, 25, 6, seed=1)
    before = uniformity(z), view_retrieval(views)
    assert 0.3 < before[1] < 0.9
    monkeypatch.setattr(distances, "BLOCK", 7)
    assert (uniformity(z), view_retrieval(views)) == pytest.approx(before, rel=1e-12)


@pytest.mark.parametrize("width", [3, 64])
def test_uniformity_of_points_drawn_evenly_on_the_sphere(width: int) -> None:
    # E exp(2 t u.v - 2 t) over the sphere is a Bessel function of the first kind, order D/2 - 1.
    t, order = 2.0, width / 2 - 1
    kappa = 2 * t
    log_mean = loggamma(width / 2) + order * math.log(2 / kappa) + math.log(ive(order, kappa))
    assert uniformity(random(3000, width)) == pytest.approx(log_mean, abs=0.02)


def test_simplex_is_as_uniform_as_can_be() -> None:
    # N corners of a regular simplex: every cosine is -1 / (N - 1).
    images = 9
    z = torch.eye(images, dtype=torch.float64) - 1 / images
    assert mean_cosine(z) == pytest.approx(-1 / 8)
    assert uniformity(z) == pytest.approx(-2 * (2 + 2 / 8))


def test_alignment_of_two_views_at_an_angle() -> None:
    angle = 0.7
    views = torch.tensor([[[1.0, 0.0]], [[3 * math.cos(angle), 3 * math.sin(angle)]]])
    assert alignment(views) == pytest.approx(2 - 2 * math.cos(angle), rel=1e-5)
    assert alignment(random(2, 20_000, 32)) == pytest.approx(2, abs=0.02)
    assert alignment(random(1, 30, 4).expand(4, 30, 4)) == 0


@pytest.mark.parametrize(("images", "width"), [(60, 12), (12, 20)])
def test_groups_on_orthogonal_lines_cluster_as_one_over_their_number(
    images: int, width: int
) -> None:
    groups = 3
    signs = torch.where(torch.arange(images) % 2 == 0, 1.0, -1.0)[:, None]
    z = signs * torch.eye(groups, width).repeat_interleave(images // groups, dim=0)
    expected = images + images * (images - 1) / width
    assert self_clustering(z) == pytest.approx(
        (images**2 / groups - expected) / (images**2 - expected), rel=1e-5
    )
    assert self_clustering(z[: images // groups]) == pytest.approx(1)


def test_random_directions_do_not_cluster() -> None:
    assert self_clustering(random(2000, 50)) == pytest.approx(0, abs=1e-3)


def test_retrieval_tells_views_apart_from_shuffled_ones() -> None:
    base = random(200, 32)
    views = torch.stack([base, 3 * base + 0.1 * random(200, 32, seed=1)])
    assert view_retrieval(views) == 1
    shuffled = torch.stack([base, views[1].roll(1, dims=0)])
    assert view_retrieval(shuffled) == 0
    # Two hundred trials with a chance of one in two hundred.
    assert view_retrieval(torch.stack([base, random(200, 32, seed=2)])) < 0.05


def test_retrieval_ties_are_drawn_and_no_hits() -> None:
    direction = random(16)
    assert view_retrieval(direction.expand(2, 50, 16)) == pytest.approx(1 / 50)
    assert view_retrieval(torch.zeros(2, 50, 16)) == pytest.approx(1 / 50)
    # Five groups of ten equal images.
    groups = random(5, 16).repeat_interleave(10, dim=0)
    assert view_retrieval(torch.stack([groups, groups])) == pytest.approx(1 / 10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_retrieval_does_not_read_rounding(dtype: torch.dtype) -> None:
    eps = torch.finfo(dtype).eps
    generator = torch.Generator().manual_seed(0)
    direction = torch.rand(64, generator=generator) + 1
    last_bits = 1 + torch.randint(-1, 2, (50, 64), generator=generator) * eps
    views = (direction * last_bits).to(dtype).expand(2, 50, 64)
    assert view_retrieval(views) == pytest.approx(1 / 50)
    assert view_retrieval(views.float(), resolution=eps) == pytest.approx(1 / 50)
    # A hundred times as large, it tells the images apart, however small the angles.
    larger = (direction.double() * (1 + 100 * (last_bits.double() - 1))).expand(2, 50, 64)
    assert view_retrieval(larger) == 1
    if dtype == torch.float32:
        assert view_retrieval(larger.float()) == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_collapsed_embeddings(dtype: torch.dtype) -> None:
    z = random(16).to(dtype).expand(50, 16)
    assert mean_cosine(z) == pytest.approx(1)
    assert mean_cosine(z) <= 1
    assert uniformity(z) == pytest.approx(0, abs=1e-9)
    assert self_clustering(z) == pytest.approx(1)
    zeros = torch.zeros(50, 16, dtype=dtype)
    assert uniformity(zeros) == 0
    assert alignment(zeros.expand(2, 50, 16)) == 0
    assert math.isnan(mean_cosine(zeros))
    assert math.isnan(self_clustering(zeros))


def test_zero_vectors_are_left_out_of_angles() -> None:
    z = random(20, 5)
    with_zeros = torch.cat([z, torch.zeros(7, 5, dtype=torch.float64)])
    assert mean_cosine(with_zeros) == pytest.approx(mean_cosine(z))
    assert self_clustering(with_zeros) == pytest.approx(self_clustering(z))


def test_invariances() -> None:
    views = random(2, 30, 8)
    generator = torch.Generator().manual_seed(1)
    order = torch.randperm(30, generator=generator)
    rotation = torch.linalg.qr(random(8, 8, seed=2)).Q
    moved = 1e-3 * views[:, order] @ rotation
    for meter in (mean_cosine, uniformity, self_clustering):
        assert meter(moved[0]) == pytest.approx(meter(views[0]), rel=1e-9)
    assert mean_norm(moved[0]) == pytest.approx(1e-3 * mean_norm(views[0]))
    for meter in (alignment, view_retrieval):
        assert meter(moved) == pytest.approx(meter(views), rel=1e-9)


def test_narrow_floats_agree() -> None:
    views = random(2, 100, 24)
    for meter in (alignment, view_retrieval):
        assert meter(views.bfloat16()) == pytest.approx(meter(views), abs=0.02)
    for meter in (mean_cosine, uniformity, self_clustering):
        assert meter(views[0].bfloat16()) == pytest.approx(meter(views[0]), abs=0.02)


def test_nan_where_a_number_would_mean_nothing() -> None:
    assert math.isnan(alignment(random(1, 5, 3)))
    assert math.isnan(view_retrieval(random(1, 5, 3)))
    for meter in (mean_cosine, uniformity, self_clustering):
        assert math.isnan(meter(random(1, 3)))
    assert math.isnan(self_clustering(random(5, 1)))
    bad = random(2, 5, 3)
    bad[0, 2, 1] = math.inf
    assert math.isnan(alignment(bad))
    assert math.isnan(view_retrieval(bad))
    for meter in (mean_norm, mean_cosine, uniformity, self_clustering):
        assert not math.isfinite(meter(bad[0]))
