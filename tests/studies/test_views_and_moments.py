"""Distribution matching, many views and multi-crop: measures and budgets with known results."""

import math

import pytest
import torch
from made_up import result, results
from torch import Tensor, nn

from noneg.methods.base import Embeddings
from noneg.methods.siamese import Options, Siamese
from noneg.studies import distribution_matching, many_views, multi_crop

METHOD = Siamese(nn.Identity(), 16, Options())


def held(z: Tensor) -> dict[str, float]:
    numbers = distribution_matching.held(METHOD, Embeddings(h=z, z=z))
    return {name: float(value) for name, value in numbers.items()}


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_gaussian_is_at_the_floor_and_nothing_pulls_it() -> None:
    found = held(gaussian(10, 64, 128))
    assert found["spread"] == pytest.approx(1, abs=0.02)
    assert found["floors"] == pytest.approx(1, abs=0.05)
    assert found["sigreg_pull"] == pytest.approx(0, abs=0.02)
    assert found["non_gaussianity"] == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("spread", [1e-1, 1e-2, 1e-4])
def test_near_collapse_sigreg_pulls_in_proportion_to_the_spread(spread: float) -> None:
    """T / n = 0.4089 - (sqrt(2 pi) - sqrt(pi) / 2) s^2 + ...; the hinge is 1 - sqrt(s^2 + 1e-4)."""
    found = held(spread * gaussian(2, 64, 32))
    factor = math.sqrt(2 * math.pi) - math.sqrt(math.pi) / 2
    assert found["statistic"] == pytest.approx(0.4089, abs=0.02)
    assert found["sigreg_pull"] == pytest.approx(2 * factor * spread, rel=0.06)
    expected = spread / math.sqrt(spread**2 + 1e-4)
    assert found["hinge_pull"] == pytest.approx(expected, rel=0.06)


def test_shape_is_what_is_left_after_mean_variance_and_correlation() -> None:
    z = gaussian(4, 64, 16)
    mixed = z @ gaussian(16, 16, seed=1) + 3
    assert held(mixed)["floors"] > 10
    assert held(mixed)["non_gaussianity"] == pytest.approx(1, abs=0.4)
    two_values = z.sign() * 2.0 ** torch.arange(16)
    assert held(two_values)["non_gaussianity"] > 3


def test_measuring_changes_nothing_of_the_run() -> None:
    z = gaussian(2, 8, 4).requires_grad_()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    distribution_matching._usual.cache_clear()
    with torch.no_grad():
        held(z)
    assert z.grad is None
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("views", [2, 8])
def test_noise_of_the_mean_of_the_other_views(views: int) -> None:
    """Long vectors: lengths do not matter. The noise of a view has a quarter of the variance."""
    image, noise = gaussian(1, 500, 512), 0.5 * gaussian(views, 500, 512, seed=1)
    z = 7 * (image + noise)
    numbers = many_views.target_noise(METHOD, Embeddings(h=z, z=z))
    expected = 0.25 / (views - 1) / (1 + 0.25 / (views - 1))
    assert float(numbers["target_noise"]) == pytest.approx(expected, rel=0.02)
    # Views without noise, and images that are all the same.
    for z, value in ((image.expand(views, -1, -1), 0), (noise[:, :1].expand(-1, 9, -1), 1)):
        numbers = many_views.target_noise(METHOD, Embeddings(h=z, z=z))
        assert float(numbers["target_noise"]) == pytest.approx(value, abs=1e-12)


def test_runs_of_many_views_see_the_same_views_at_the_same_rate() -> None:
    for variant in many_views.STUDY.variants:
        settings, few = variant.settings, variant.name.endswith("2 x 16")
        images = settings["batch_size"]
        assert images * settings["num_views"] == (32 if few else 128)
        assert settings["learning_rate"] * images / 256 == pytest.approx(3e-3)


def test_runs_of_the_same_pixels() -> None:
    for variant in multi_crop.STUDY.variants:
        views = variant.settings["views"]
        pixels = sum((view.size or 16) ** 2 for view in views) * variant.settings["steps"]
        if "same minutes" not in variant.name:
            assert pixels == pytest.approx(186 * 2 * 16**2, rel=0.01), variant.name
        # Targets are made from the first views.
        assert [view.size for view in views] == sorted(
            (view.size for view in views), key=lambda size: size is not None
        )


def test_the_time_of_a_small_crop() -> None:
    """4 small crops add 0.4 s to a step, 2 large ones 1 s: one fifth."""
    crops = {"2 large": 1.0, "2 + 4 small": 1.4, "4 large": 2.0}
    made = results(
        [
            result(f"{method}, {name}", seed, cpu_seconds=50 * seconds, step=50.0)
            for method in ("swav", "lejepa")
            for name, seconds in crops.items()
            for seed in (0, 1)
        ]
    )
    outcome = multi_crop._a_small_crop_is_cheap(made)
    assert outcome.holds
    assert "swav: a small crop takes 0.20 of the time" in outcome.reason
