"""Neighbors, duplicates and outliers of embeddings that are known."""

import numpy as np
import pytest

from noneg.report.sample import Sample, directions
from noneg.report.sections.duplicates import find_duplicates, find_outliers
from noneg.report.sections.neighbors import NEIGHBORS, find_neighbors, find_typical

pytestmark = pytest.mark.usefixtures("elsewhere")


def sample_of(embeddings: np.ndarray, pixels: np.ndarray | None = None) -> Sample:
    n = len(embeddings)
    if pixels is None:
        pixels = np.random.default_rng(0).integers(0, 256, (n, 3, 8, 8), dtype=np.uint8)
    names = tuple(str(number) for number in range(n))
    unit = directions(embeddings)
    return Sample(pixels, names, None, None, None, n, embeddings, unit)


def test_neighbors_are_those_of_the_full_matrix_of_cosines() -> None:
    # More than one block of rows.
    embeddings = np.random.default_rng(0).normal(size=(1_150, 12)).astype(np.float32)
    found = find_neighbors(directions(embeddings))
    exact = embeddings.astype(np.float64)
    exact -= exact.mean(axis=0)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    cosines = exact @ exact.T
    np.fill_diagonal(cosines, -np.inf)
    expected = np.argsort(-cosines, axis=1)[:, :NEIGHBORS]
    assert np.array_equal(found.index, expected)
    np.testing.assert_allclose(
        found.cosine, np.take_along_axis(cosines, expected, axis=1), atol=1e-5
    )


def test_planted_duplicates_are_found_and_equal_pixels_come_first() -> None:
    generator = np.random.default_rng(1)
    embeddings = generator.normal(size=(300, 32)).astype(np.float32)
    embeddings[17] = embeddings[4]
    embeddings[200] = embeddings[90] + 0.01 * generator.normal(size=32).astype(np.float32)
    pixels = generator.integers(0, 256, (300, 3, 8, 8), dtype=np.uint8)
    pixels[200] = pixels[90]
    sample = sample_of(embeddings, pixels)
    pairs = find_duplicates(sample, find_neighbors(sample.directions))
    assert [(pair.first, pair.second) for pair in pairs] == [(90, 200), (4, 17)]
    assert pairs[0].difference == 0 < pairs[1].difference
    assert pairs[1].cosine > 0.9999


def test_images_of_one_mean_are_not_all_duplicates() -> None:
    # After a ReLU all embeddings share a large mean, and all cosines with it are near 1.
    embeddings = 50 + np.random.default_rng(2).normal(size=(200, 16)).astype(np.float32)
    sample = sample_of(embeddings)
    assert not find_duplicates(sample, find_neighbors(sample.directions))


def test_equal_embeddings_have_no_direction() -> None:
    assert not directions(np.full((50, 8), 3.3, dtype=np.float32)).any()


def test_the_image_like_no_other_is_the_first_outlier() -> None:
    generator = np.random.default_rng(3)
    centers = generator.normal(size=(4, 24))
    embeddings = np.repeat(centers, 40, axis=0) + 0.1 * generator.normal(size=(160, 24))
    embeddings[73] = 3 * generator.normal(size=24)
    sample = sample_of(embeddings.astype(np.float32))
    assert find_outliers(find_neighbors(sample.directions), 3)[0] == 73


def test_the_typical_image_is_the_middle_of_its_cluster() -> None:
    angles = np.array([-0.2, -0.1, 0.0, 0.1, 0.2, 1.4, 1.5, 1.6])
    unit = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert find_typical(unit, np.array([0, 0, 0, 0, 0, 1, 1, 1]), 2) == [2, 6]
    assert find_typical(unit, np.array([0, 0, 0, 0, 0, 1, 1, 1]), 1) == [2]
