"""The meters of the spectrum, on spectra that are set exactly."""

import math

import numpy as np
import pytest
import torch
from constructed import with_singular_values
from hypothesis import given, settings
from hypothesis import strategies as st

from noneg.diagnostics import (
    alpha_req,
    covariance_eigenvalues,
    effective_rank,
    explained_auc,
    nesum,
    participation_ratio,
    rankme,
    stable_rank,
    top_share,
)
from noneg.diagnostics.spectrum import alpha_req_of, participation_ratio_of

METERS = [effective_rank, participation_ratio, top_share, nesum, explained_auc, rankme, stable_rank]


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize(("images", "width"), [(60, 20), (20, 60), (20, 20)])
def test_eigenvalues_agree_with_a_singular_value_decomposition(
    images: int, width: int, centered: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(images, width, generator=generator, dtype=torch.float64).exp()
    plain = z.numpy() - (z.numpy().mean(axis=0) if centered else 0)
    expected = np.linalg.svd(plain, compute_uv=False) ** 2 / images
    eigenvalues = covariance_eigenvalues(z, centered=centered)
    assert eigenvalues.dtype == torch.float64
    np.testing.assert_allclose(eigenvalues, expected, rtol=1e-9, atol=1e-12 * expected[0])
    narrow = covariance_eigenvalues(z.bfloat16(), centered=centered)
    np.testing.assert_allclose(narrow, expected, rtol=0, atol=0.02 * expected[0])


@pytest.mark.parametrize(("images", "width"), [(60, 20), (20, 60)], ids=["tall", "wide"])
def test_closed_forms_on_a_known_spectrum(images: int, width: int) -> None:
    # Singular values 2, 1, 1: eigenvalues in the ratio 4 : 1 : 1, and 17 zeros.
    z = 5 + with_singular_values([2.0, 1.0, 1.0], images, width, centered=True)
    assert effective_rank(z) == pytest.approx(2**1.5, rel=1e-6)
    assert participation_ratio(z) == pytest.approx(36 / 18, rel=1e-6)
    assert participation_ratio_of(covariance_eigenvalues(z)) == pytest.approx(2, rel=1e-6)
    assert top_share(z) == pytest.approx(4 / 6, rel=1e-6)
    assert nesum(z) == pytest.approx(1.5, rel=1e-6)
    # Cumulative shares of the singular values: 2/4, 3/4, then 1 from the third to the last.
    assert explained_auc(z) == pytest.approx((0.5 + 0.75 + 18) / 20, rel=1e-6)
    uncentered = with_singular_values([2.0, 1.0, 1.0], images, width, centered=False)
    assert stable_rank(uncentered) == pytest.approx(1.5, rel=1e-6)
    share = np.array([0.5, 0.25, 0.25] + [0.0] * 17) + 1e-7
    assert rankme(uncentered) == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-6)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_k_equal_directions_count_k(k: int) -> None:
    z = with_singular_values([1.0] * k, 40, 12, centered=True)
    for meter in (effective_rank, participation_ratio, nesum):
        assert meter(z) == pytest.approx(k, rel=1e-6)
    assert top_share(z) == pytest.approx(1 / k, rel=1e-6)
    assert explained_auc(z) == pytest.approx(1 - (k - 1) / 2 / 12, rel=1e-6)


def test_rankme_and_stable_rank_see_the_mean_and_the_others_do_not() -> None:
    z = with_singular_values([1.0] * 6, 50, 10, centered=True)
    shifted = z + 1e3
    for meter in (effective_rank, participation_ratio, nesum, top_share, explained_auc):
        assert meter(shifted) == pytest.approx(meter(z), rel=1e-4)
    assert rankme(shifted) < 1.01 < 5.9 < rankme(z)
    assert stable_rank(shifted) < 1.01 < 5.9 < stable_rank(z)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("directions", [40, 150])
def test_alpha_of_a_power_law(alpha: float, directions: int) -> None:
    index = torch.arange(1.0, directions + 1, dtype=torch.float64)
    singular = (index ** (-alpha / 2)).tolist()
    z = with_singular_values(singular, 400, 200, centered=True)
    # Directions beyond the rank are not part of the fit.
    assert alpha_req(z) == pytest.approx(alpha, abs=1e-6)


def test_alpha_fits_its_range_alone_with_weights_of_one_over_the_index() -> None:
    generator = np.random.default_rng(0)
    values = np.sort(generator.exponential(size=200))[::-1].copy()
    index = np.arange(11, 101)
    expected = np.polyfit(np.log(index), np.log(values[10:100]), 1, w=index**-0.5)[0]
    assert alpha_req_of(torch.tensor(values)) == pytest.approx(-expected, rel=1e-9)
    values[:10] *= 100
    values[100:] *= 1e-3
    assert alpha_req_of(torch.tensor(values)) == pytest.approx(-expected, rel=1e-9)


def test_alpha_needs_ten_eigenvalues() -> None:
    values = torch.cat([torch.arange(30.0, 10.0, -1), torch.zeros(5)]).double()
    assert math.isfinite(alpha_req_of(values))
    values[19] = 0
    assert math.isnan(alpha_req_of(values))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_collapsed_embeddings_read_as_a_line(dtype: torch.dtype) -> None:
    direction = torch.randn(32, generator=torch.Generator().manual_seed(2)).to(dtype)
    for z in (direction.expand(100, 32), torch.zeros(100, 32, dtype=dtype)):
        for meter in METERS:
            assert meter(z) == pytest.approx(1, abs=1e-4)
        assert math.isnan(alpha_req(z))


def test_rounding_is_no_direction_even_where_the_type_hides_it() -> None:
    generator = torch.Generator().manual_seed(3)
    near = torch.randn(256, generator=generator) + 1e-3 * torch.randn(300, 256, generator=generator)
    coarse = near.bfloat16()
    assert participation_ratio(near) > 100
    assert participation_ratio(coarse) == 1
    assert participation_ratio(coarse.float(), resolution=2.0**-7) == 1
    eigenvalues = covariance_eigenvalues(coarse.float(), resolution=2.0**-7)
    assert not bool(eigenvalues.any())
    # Without `resolution`, rounding noise counts as directions.
    assert participation_ratio(coarse.float()) > 20


def test_embeddings_that_are_not_finite_give_nan() -> None:
    z = torch.ones(30, 20)
    z[3, 2] = math.inf
    for meter in [*METERS, alpha_req]:
        assert math.isnan(meter(z)), meter.__name__


@settings(max_examples=30, deadline=None)
@given(images=st.integers(2, 12), width=st.integers(1, 12), seed=st.integers(0, 10**6))
def test_ranges_and_invariances(images: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(images, width, generator=generator, dtype=torch.float64)
    order = torch.randperm(images, generator=generator)
    rotation = torch.linalg.qr(torch.randn(width, width, generator=generator).double()).Q
    most = min(images - 1, width)
    for meter in METERS:
        value = meter(z)
        assert meter(7 * z[order] @ rotation) == pytest.approx(value, rel=1e-4)
        if meter in (effective_rank, participation_ratio, nesum):
            assert 1 - 1e-6 <= value <= most + 1e-5
    assert 1 / most - 1e-6 <= top_share(z) <= 1 + 1e-6
    d = min(images, width)
    assert 0.5 + 0.5 / d - 1e-6 <= explained_auc(z) <= 1 + 1e-6
    # The inequality between the means of any spectrum.
    assert nesum(z) <= participation_ratio(z) + 1e-9 <= effective_rank(z) + 2e-9
