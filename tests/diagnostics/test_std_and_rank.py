"""The meters on constructed spectra, whose values are known in closed form."""

import math

import pytest
import torch
from constructed import with_singular_values
from hypothesis import given, settings
from hypothesis import strategies as st

from noneg.diagnostics import effective_rank, normalized_std


@pytest.mark.parametrize(("images", "width"), [(60, 20), (20, 60)], ids=["tall", "wide"])
@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0], 1.0),
        ([2.0, 2.0, 2.0, 2.0], 4.0),
        # p = (3/4, 1/4): exp(entropy) = (4/3)^(3/4) * 4^(1/4).
        ([3.0, 1.0], (4 / 3) ** 0.75 * 4**0.25),
        # p = (1/2, 1/4, 1/4): entropy = 3/2 log 2. Squared values would give another number.
        ([2.0, 1.0, 1.0], 2**1.5),
    ],
)
def test_effective_rank_of_known_spectra(
    values: list[float], expected: float, centered: bool, images: int, width: int
) -> None:
    z = with_singular_values(values, images, width, centered=centered)
    assert float(effective_rank(z, centered=centered)) == pytest.approx(expected, rel=1e-5)
    assert float(effective_rank(1e-3 * z.float(), centered=centered)) == pytest.approx(
        expected, rel=1e-4
    )


def test_effective_rank_agrees_with_singular_value_decomposition() -> None:
    z = torch.randn(40, 70, generator=torch.Generator().manual_seed(1), dtype=torch.float64).exp()
    for centered in (True, False):
        singular = torch.linalg.svdvals(z - z.mean(dim=0) if centered else z)
        share = singular / singular.sum()
        share = share[share > 1e-12]
        expected = math.exp(-float((share * share.log()).sum()))
        assert float(effective_rank(z, centered=centered)) == pytest.approx(expected, rel=1e-5)


def test_a_shared_mean_hides_the_uncentered_spectrum_only() -> None:
    z = with_singular_values([1.0, 1.0, 1.0], 50, 10, centered=True)
    shifted = z + 1e3
    assert float(effective_rank(shifted)) == pytest.approx(3.0, rel=1e-5)
    assert float(effective_rank(shifted, centered=False)) < 1.01


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_collapsed_embeddings_have_rank_one_and_no_spread(dtype: torch.dtype) -> None:
    direction = torch.randn(32, generator=torch.Generator().manual_seed(2)).to(dtype)
    collapsed = direction.expand(100, 32)
    for centered in (True, False):
        assert float(effective_rank(collapsed, centered=centered)) == pytest.approx(1.0, abs=1e-6)
        assert float(effective_rank(torch.zeros(100, 32, dtype=dtype), centered=centered)) == 1.0
    assert float(normalized_std(collapsed)) < 1e-5
    assert float(normalized_std(torch.zeros(100, 32, dtype=dtype))) == 0.0


def test_rounding_errors_are_no_directions() -> None:
    generator = torch.Generator().manual_seed(3)
    direction = torch.randn(256, generator=generator)
    last_bits = 1 + torch.randint(-1, 2, (300, 256), generator=generator) * 2.0**-23
    assert float(effective_rank(direction * last_bits)) == 1.0
    # The same pattern a thousand times larger is signal, and of nearly full rank.
    assert float(effective_rank(direction * (1 + 1000 * (last_bits - 1)))) > 150


def test_independent_embeddings_are_healthy() -> None:
    z = torch.randn(4096, 16, generator=torch.Generator().manual_seed(4))
    assert float(normalized_std(z)) == pytest.approx(1.0, abs=0.01)
    assert float(effective_rank(z)) == pytest.approx(16.0, abs=0.1)


def test_normalized_std_of_two_opposite_groups() -> None:
    # Directions at +-angle from the first axis: spreads (0, sin) in two dimensions.
    angle = 0.3
    above = torch.tensor([math.cos(angle), math.sin(angle)])
    z = torch.stack([above, above * torch.tensor([1.0, -1.0])]).repeat(5, 1)
    expected = math.sqrt(2) * math.sin(angle) / 2
    assert float(normalized_std(z)) == pytest.approx(expected, rel=1e-5)
    lengths = torch.arange(1.0, 11.0)[:, None]
    assert float(normalized_std(lengths * z)) == pytest.approx(expected, rel=1e-5)


def test_each_meter_sees_what_the_other_cannot() -> None:
    generator = torch.Generator().manual_seed(5)
    signs = torch.randint(0, 2, (1000, 1), generator=generator) * 2.0 - 1
    line = signs * torch.ones(1, 64)
    assert float(normalized_std(line)) > 0.99
    assert float(effective_rank(line)) == pytest.approx(1.0, abs=1e-6)
    nearly_equal = 1 + 1e-3 * torch.randn(1000, 64, generator=generator)
    assert float(normalized_std(nearly_equal)) < 0.01
    assert float(effective_rank(nearly_equal)) > 60


def test_one_image_is_defined() -> None:
    z = torch.tensor([[1.0, -2.0, 3.0]])
    assert float(normalized_std(z)) == 0.0
    assert float(effective_rank(z)) == 1.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_embeddings_that_are_not_finite_give_nan(bad: float) -> None:
    z = torch.ones(8, 4)
    z[3, 2] = bad
    assert math.isnan(float(effective_rank(z)))
    assert math.isnan(float(normalized_std(z)))


@settings(max_examples=30, deadline=None)
@given(images=st.integers(2, 12), width=st.integers(1, 12), seed=st.integers(0, 10**6))
def test_ranges_and_invariances(images: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(images, width, generator=generator, dtype=torch.float64)
    rank, spread = float(effective_rank(z)), float(normalized_std(z))
    assert 1 - 1e-6 <= rank <= min(images - 1, width) + 1e-5
    assert -1e-6 <= spread <= 1 + 1e-6
    order = torch.randperm(images, generator=generator)
    rotation = torch.linalg.qr(torch.randn(width, width, generator=generator).double()).Q
    assert float(effective_rank(7 * z[order] @ rotation)) == pytest.approx(rank, rel=1e-4)
    assert float(normalized_std(7 * z[order])) == pytest.approx(spread, rel=1e-4, abs=1e-7)


def test_no_change_to_the_embeddings() -> None:
    z = torch.randn(8, 4, generator=torch.Generator().manual_seed(6), requires_grad=True)
    before = z.detach().clone()
    effective_rank(z)
    normalized_std(z)
    assert torch.equal(z.detach(), before)
