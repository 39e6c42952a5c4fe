"""Whitened patches and k-means, against an explicit float64 transcription of the paper."""

import math

import numpy as np
import pytest
import torch

from noneg.errors import NonegError
from noneg.evaluation import patches
from noneg.evaluation.knn import knn_accuracy
from noneg.evaluation.linear import linear_probe_accuracy
from noneg.evaluation.patches import (
    Patches,
    first_components,
    learn_patches,
    normalized,
    patch_features,
    whitening,
)
from noneg.evaluation.pixels import centered_pixels


def noise(images: int, channels: int, side: int, seed: int) -> np.ndarray:
    """Noise that is a little smooth, so that its covariance is not the identity."""
    generator = np.random.default_rng(seed)
    grid = generator.normal(size=(images, channels, side + 1, side + 1))
    smooth = grid[..., 1:, 1:] + grid[..., :-1, 1:] + grid[..., 1:, :-1]
    return np.clip(128 + 40 * smooth, 0, 255).astype(np.uint8)


def transcription(learned: Patches, pixels: np.ndarray) -> np.ndarray:
    """Coates et al. 2011, sections 3.1 to 3.3: one image, one patch, one centroid at a time."""
    side, mean = learned.patch_side, learned.mean.double().numpy()
    matrix, centroids = learned.whitening.double().numpy(), learned.centroids.double().numpy()
    rows = []
    for image in pixels.astype(np.float64):
        positions = image.shape[-1] - side + 1
        activations = np.zeros((positions, positions, len(centroids)))
        for row in range(positions):
            for column in range(positions):
                patch = image[:, row : row + side, column : column + side].reshape(-1)
                patch = (patch - patch.mean()) / math.sqrt(patch.var() + 10)
                white = (patch - mean) @ matrix
                distances = [float(np.sqrt(((white - each) ** 2).sum())) for each in centroids]
                average = sum(distances) / len(distances)
                activations[row, column] = [max(0.0, average - each) for each in distances]
        first, second = slice(0, (positions + 1) // 2), slice(positions // 2, None)
        quadrants = [activations[r, c] for r in (first, second) for c in (first, second)]
        rows.append(np.concatenate([each.mean(axis=(0, 1)) for each in quadrants]))
    return np.array(rows)


@pytest.mark.parametrize(("channels", "side"), [(1, 12), (3, 13), (5, 8)])
def test_features_agree_with_the_transcription(channels: int, side: int) -> None:
    pixels = noise(20, channels, side, 1)
    learned = learn_patches(pixels, side, centroids=15)
    assert learned.patch_side == min(6, side // 2)
    features, expected = learned.features(pixels[:4]), transcription(learned, pixels[:4])
    assert features.shape == (4, 60)
    assert features.dtype == np.float32
    assert np.abs(features - expected).max() < 1e-4 * expected.max()
    assert (expected > 0).mean() > 0.3


def test_whitening_gives_the_identity() -> None:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(9, 9, generator=generator, dtype=torch.float64)
    rows = torch.randn(500, 9, generator=generator, dtype=torch.float64) @ mixing + 3
    mean, matrix = whitening(rows, regularization=0.0, kept=1.0)
    white = (rows - mean) @ matrix
    assert torch.allclose(white.T @ white / 500, torch.eye(9, dtype=torch.float64), atol=1e-9)
    # With regularization, a variance v becomes v / (v + 0.1).
    variances = torch.linalg.eigvalsh(torch.cov(rows.T, correction=0)).flip(0)
    mean, matrix = whitening(rows, kept=1.0)
    white = (rows - mean) @ matrix
    expected = torch.diag(variances / (variances + 0.1))
    assert torch.allclose(white.T @ white / 500, expected, atol=1e-9)


def test_the_fewest_directions_hold_the_share_of_the_variance() -> None:
    # Exactly uncorrelated columns with variances 80, 15, 4, 1: in all 100.
    signs = torch.tensor(
        [[a, b, c, d] for a in (-1.0, 1) for b in (-1.0, 1) for c in (-1.0, 1) for d in (-1.0, 1)]
    )
    rows = signs * torch.tensor([80.0, 15, 4, 1]).sqrt()
    widths = [whitening(rows, kept=kept)[1].shape[1] for kept in (0.5, 0.9, 0.96, 0.995)]
    assert widths == [1, 2, 3, 4]


def test_brightness_and_contrast_of_images_hardly_matter() -> None:
    pixels = np.clip(noise(30, 3, 16, 2) // 2 + 20, 0, 255).astype(np.uint8)
    learned = learn_patches(pixels, 16, centroids=20)
    features = learned.features(pixels)
    spread = features.std()
    assert np.abs(learned.features(pixels + 40) - features).max() < 1e-2 * spread
    # Halves are rounded, and the variance is no longer large compared to 10.
    assert np.abs(learned.features(pixels // 2) - features).max() < 0.5 * spread
    # Negative control: a gradient is no change of brightness.
    gradient = np.linspace(0, 80, 16).astype(np.uint8)
    assert np.abs(learned.features(pixels + gradient) - features).max() > spread


def test_patches_without_contrast_are_not_amplified() -> None:
    patch = torch.zeros(1, 12)
    patch[0, 0] = 1 / 255
    assert normalized(patch).abs().max() < 0.35
    assert normalized(255 * patch).abs().max() > 3


def test_features_do_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = noise(41, 3, 12, 3)
    learned = learn_patches(pixels, 12, centroids=20)
    together = learned.features(pixels)
    one_by_one = np.concatenate([learned.features(pixels[i : i + 1]) for i in range(41)])
    monkeypatch.setattr(patches, "_BLOCK", 7 * 49 * 20)
    for features in (one_by_one, learned.features(pixels)):
        assert np.allclose(features, together, atol=1e-5)


def test_the_seed_decides() -> None:
    pixels = noise(30, 1, 12, 4)
    first, same, other = (learn_patches(pixels, 12, centroids=10, seed=s) for s in (1, 1, 2))
    assert torch.equal(first.centroids, same.centroids)
    assert torch.equal(first.whitening, same.whitening)
    assert not torch.allclose(first.centroids, other.centroids, atol=1e-3)


def textures(images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Stripes in one of four directions, at a random place and with either sign."""
    generator = np.random.default_rng(seed)
    labels = np.arange(images) % 4
    rows, columns = np.mgrid[:16, :16]
    angle = np.pi / 4 * labels[:, None, None]
    phase = generator.uniform(0, 2 * np.pi, (images, 1, 1))
    waves = np.sin(1.3 * (np.cos(angle) * rows + np.sin(angle) * columns) + phase)
    pixels = 128 + 40 * waves + generator.normal(0, 25, (images, 16, 16))
    return np.clip(pixels, 0, 255).astype(np.uint8)[:, None], labels


def colors(images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """One of four brightnesses, which patches are blind to, and noise."""
    generator = np.random.default_rng(seed)
    labels = np.arange(images) % 4
    pixels = 40 * labels[:, None, None] + 60 + generator.normal(0, 10, (images, 16, 16))
    return np.clip(pixels, 0, 255).astype(np.uint8)[:, None], labels


def test_patches_see_textures_and_no_brightness() -> None:
    accuracies = {}
    for name, draw in (("textures", textures), ("colors", colors)):
        (bank, bank_labels), (test, test_labels) = draw(160, 1), draw(120, 2)
        kinds = {
            "patches": first_components(*patch_features(bank, test, 16), 32),
            "pixels": centered_pixels(bank, test, 16),
        }
        for kind, (first, second) in kinds.items():
            probe = linear_probe_accuracy(first, bank_labels, second, test_labels)
            accuracies[name, kind] = probe.accuracy
    assert accuracies["textures", "patches"] > 0.95
    assert accuracies["textures", "pixels"] < 0.6
    # The negative controls: what the method throws away, and labels that mean nothing.
    assert accuracies["colors", "patches"] < 0.5
    assert accuracies["colors", "pixels"] > 0.95
    (bank, labels), (test, test_labels) = textures(160, 1), textures(120, 2)
    shuffled = np.random.default_rng(5).permutation(labels)
    parts = patch_features(bank, test, 16)
    tensors = (torch.from_numpy(each) for each in (parts[0], shuffled, parts[1], test_labels))
    assert knn_accuracy(*tensors) < 0.5


@pytest.mark.parametrize("side", [1, 2, 3, 5, 6])
@pytest.mark.parametrize("channels", [1, 4])
def test_tiny_images(side: int, channels: int) -> None:
    features, _ = patch_features(noise(9, channels, side, 6), noise(2, channels, side, 7), side)
    assert np.isfinite(features).all()
    # A single gray pixel has no contrast.
    assert features.std(axis=0).any() == (side * channels > 1)


def test_constant_images_and_a_single_one() -> None:
    for count in (1, 30):
        flat = np.full((count, 3, 12, 12), 200, dtype=np.uint8)
        features, other = patch_features(flat, noise(3, 3, 12, 8), 12)
        assert np.isfinite(features).all()
        assert np.isfinite(other).all()
        first, second = first_components(features, other, 5)
        assert first.shape == (count, 1)
        assert not first.any()
        assert np.isfinite(second).all()
    with pytest.raises(NonegError, match="no images"):
        patch_features(flat[:0], flat, 12)


def test_larger_images_are_shrunk() -> None:
    pixels = noise(10, 3, 24, 9)
    doubled = pixels.repeat(2, axis=2).repeat(2, axis=3)
    learned = learn_patches(pixels, 24, centroids=10)
    features = learned.features(pixels)
    # Antialiasing smooths repeated pixels a little.
    assert np.corrcoef(learned.features(doubled).ravel(), features.ravel())[0, 1] > 0.9


def test_components_are_uncorrelated_and_without_rounding_errors() -> None:
    generator = np.random.default_rng(10)
    bank = (generator.normal(size=(200, 3)) @ generator.normal(size=(3, 20)) + 7).astype(np.float32)
    first, second = first_components(bank, bank[:5], 10)
    # The features have three directions.
    assert first.shape == (200, 3)
    assert np.allclose(second, first[:5], atol=1e-5)
    covariance = np.cov(first.astype(np.float64).T, bias=True)
    assert np.allclose(covariance, np.diag(np.diag(covariance)), atol=1e-4)
    assert np.all(np.diff(np.diag(covariance)) < 0)
    assert np.trace(covariance) == pytest.approx(bank.var(axis=0, dtype=np.float64).sum(), rel=1e-4)
    assert first_components(bank, bank, 2)[0].shape == (200, 2)
    assert first_components(bank[:3], bank, 10)[0].shape == (3, 2)
