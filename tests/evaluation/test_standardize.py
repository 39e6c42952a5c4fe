"""Standardizing and whitening: closed forms, invariances, constant features, few images."""

import numpy as np
import pytest
import torch

from noneg.errors import NonegError
from noneg.evaluation.knn import knn_accuracy
from noneg.evaluation.standardize import standardized, whitened


def correlated(images: int, width: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(77).normal(size=(width, width))
    return (generator.normal(size=(images, width)) @ mixing + 5).astype(np.float32)


def cosines(rows: np.ndarray) -> np.ndarray:
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit @ unit.T


def test_whitening_divides_by_the_root_of_the_shrunken_covariance() -> None:
    bank, test = correlated(400, 6, 1), correlated(50, 6, 2)
    covariance = np.cov(bank.astype(np.float64).T, bias=True)
    variance = np.trace(covariance) / 6
    shrunken = 0.7 * covariance + 0.3 * variance * np.eye(6)
    centered = test.astype(np.float64) - bank.astype(np.float64).mean(axis=0)
    expected = centered @ np.linalg.inv(shrunken) @ centered.T
    _, white = whitened(bank, test, shrinkage=0.3)
    # The root is only defined up to a rotation, which scalar products do not see.
    assert np.allclose(white @ white.T, expected, rtol=1e-3, atol=1e-3)


def test_without_shrinkage_the_covariance_of_the_bank_is_the_identity() -> None:
    bank = correlated(400, 6, 3)
    white, _ = whitened(bank, bank, shrinkage=1e-7)
    assert np.allclose(white.mean(axis=0), 0, atol=1e-4)
    assert np.allclose(np.cov(white.T, bias=True), np.eye(6), atol=1e-2)


def test_full_shrinkage_only_centers() -> None:
    bank = correlated(100, 5, 4)
    white, _ = whitened(bank, bank, shrinkage=1.0)
    centered = bank - bank.mean(axis=0)
    assert np.allclose(cosines(white), cosines(centered), atol=1e-4)
    assert not np.allclose(cosines(white), cosines(bank), atol=0.1)


def test_neighbors_do_not_depend_on_shift_rotation_and_scale() -> None:
    bank, test = correlated(300, 8, 5), correlated(100, 8, 6)
    rotation = np.linalg.qr(np.random.default_rng(7).normal(size=(8, 8)))[0]

    def changed(part: np.ndarray) -> np.ndarray:
        return (1e-3 * part @ rotation + 2).astype(np.float32)

    one, other = whitened(bank, test)[1], whitened(changed(bank), changed(test))[1]
    assert np.allclose(cosines(one), cosines(other), atol=1e-2)


def test_neighbors_of_standardized_features_do_not_depend_on_the_scale_of_each() -> None:
    bank, test = correlated(300, 8, 8), correlated(100, 8, 9)
    scales = np.logspace(-3, 3, 8).astype(np.float32)
    shifts = np.linspace(-1, 1, 8).astype(np.float32) * scales
    one = standardized(bank, test)[1]
    other = standardized(bank * scales + shifts, test * scales + shifts)[1]
    assert np.allclose(one, other, atol=1e-3)


def test_a_strong_direction_without_the_class_does_not_hide_the_class() -> None:
    """100 times as strong as the two directions that tell the classes: raw cosines see only it."""

    def images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        generator = np.random.default_rng(seed)
        labels = generator.integers(0, 2, count)
        features = 0.3 * generator.normal(size=(count, 3)) + 20
        features[:, 0] += 100 * generator.normal(size=count)
        features[:, 1] += 2 * labels - 1
        return features.astype(np.float32), labels

    (bank, bank_labels), (test, test_labels) = images(400, 1), images(400, 2)

    def accuracy(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> float:
        tensors = (torch.from_numpy(each) for each in (first, labels, second, test_labels))
        return knn_accuracy(*tensors)

    white = whitened(bank, test, shrinkage=1e-4)
    assert accuracy(bank, test, bank_labels) < 0.8
    assert accuracy(*white, bank_labels) > 0.95
    # Nothing in the features tells shuffled labels.
    shuffled = np.random.default_rng(3).permutation(bank_labels)
    assert accuracy(*white, shuffled) < 0.65


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6])
def test_constant_features_become_zero(constant: float) -> None:
    """Also if some differ from the others in the last bit, as after sums in another order."""
    bank, test = correlated(200, 4, 10), correlated(30, 4, 11)
    bank[:, 2] = test[:, 2] = constant
    if constant:
        bank[::3, 2] = test[::3, 2] = np.nextafter(np.float32(constant), np.float32(2 * constant))
    for change in (standardized, whitened):
        first, second = change(bank, test)
        assert np.abs(first[:, 2]).max() < 1e-3
        assert np.isfinite(second).all()
    without = [np.delete(part, 2, axis=1) for part in (bank, test)]
    # The mean variance is over all features, so the shrinkage of the others is 3 / 4.
    _, one = whitened(bank, test, shrinkage=1e-6)
    _, other = whitened(*without, shrinkage=1e-6)
    assert np.allclose(cosines(one), cosines(other), atol=1e-2)


def test_all_constant_and_fewer_images_than_features() -> None:
    first, second = whitened(np.ones((5, 3), np.float32), np.ones((2, 3), np.float32))
    assert not first.any()
    assert not second.any()
    few, _ = whitened(correlated(4, 30, 12), correlated(2, 30, 13))
    assert np.isfinite(few).all()
    assert few.any()


@pytest.mark.parametrize(
    ("bank", "sentence"),
    [(np.zeros((0, 2), np.float32), "there are none"), (np.full((3, 2), np.nan), "hold NaN")],
)
def test_unusable_features_are_named(bank: np.ndarray, sentence: str) -> None:
    with pytest.raises(NonegError, match=f"bank cannot be whitened.*{sentence}"):
        whitened(bank, np.ones((1, 2), np.float32))
