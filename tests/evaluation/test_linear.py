"""The linear probe: known accuracies, and nothing learned from the test images."""

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from noneg.errors import NonegError
from noneg.evaluation import linear
from noneg.evaluation.linear import GRID, linear_probe_accuracy


def gaussians(
    images: int, seed: int, width: int = 5, distance: float = 2.0
) -> tuple[np.ndarray, np.ndarray]:
    """Two classes of unit Gaussians whose means lie `distance` apart along the first axis."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, images)
    features = generator.normal(size=(images, width))
    features[:, 0] += distance * labels
    return features.astype(np.float32), labels


def test_reaches_the_best_possible_accuracy_on_gaussians() -> None:
    train, train_labels = gaussians(4000, 1)
    test, test_labels = gaussians(20_000, 2)
    # Bayes: Phi(distance / 2) = Phi(1).
    best = 0.5 * (1 + math.erf(1 / math.sqrt(2)))
    probe = linear_probe_accuracy(train, train_labels, test, test_labels)
    assert probe.accuracy == pytest.approx(best, abs=0.01)
    assert probe.regularization in GRID
    assert list(probe.validation) == list(GRID[: len(probe.validation)])
    assert probe.validation[probe.regularization] == max(probe.validation.values())


@pytest.mark.parametrize("regularization", [1e-4, 1e-2, 1.0])
def test_a_fit_equals_that_of_scikit_learn(
    regularization: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(20)
    labels = generator.choice([2, 5, 9], 300)
    centers = generator.normal(size=(10, 6))
    train = (centers[labels] + generator.normal(size=(300, 6))).astype(np.float32)
    test = generator.normal(size=(5000, 6)).astype(np.float32)
    mean, std = train.mean(axis=0), train.std(axis=0)
    reference = LogisticRegression(C=regularization, tol=1e-8, max_iter=10_000)
    reference.fit((train - mean).astype(np.float64) / std, labels)
    monkeypatch.setattr(linear, "GRID", (regularization,))
    predicted = reference.predict((test - mean) / std)
    # scikit-learn's predictions are the test labels.
    assert linear_probe_accuracy(train, labels, test, predicted).accuracy > 0.995


def test_the_search_ends_when_it_gets_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    train, train_labels = gaussians(2500, 7, width=800, distance=1.5)
    monkeypatch.setattr(linear, "GRID", tuple(10.0**power for power in range(-6, 7)))
    probe = linear_probe_accuracy(train, train_labels, train, train_labels)
    tried = list(probe.validation.values())
    assert len(tried) < 13
    assert max(tried[-2:]) < max(tried[:-2]) == probe.validation[probe.regularization]


def test_scale_and_shift_of_features_change_nothing() -> None:
    train, train_labels = gaussians(500, 3)
    test, test_labels = gaussians(500, 4)
    scale = np.array([1e-4, 1e3, 1, 10, 0.1], dtype=np.float32)
    shift = np.array([1e-3, -1e3, 5, 0, 1], dtype=np.float32)
    plain = linear_probe_accuracy(train, train_labels, test, test_labels)
    moved = linear_probe_accuracy(
        train * scale + shift, train_labels, test * scale + shift, test_labels
    )
    assert moved.accuracy == pytest.approx(plain.accuracy, abs=0.005)
    assert list(moved.validation.values())[:3] == pytest.approx(
        list(plain.validation.values())[:3], abs=0.011
    )


def test_the_test_images_influence_no_choice() -> None:
    train, train_labels = gaussians(600, 5, width=50)
    test, test_labels = gaussians(600, 6, width=50)
    probe = linear_probe_accuracy(train, train_labels, test, test_labels)
    wrong = linear_probe_accuracy(train, train_labels, test, 1 - test_labels)
    assert wrong.regularization == probe.regularization
    assert wrong.validation == probe.validation
    assert wrong.accuracy == pytest.approx(1 - probe.accuracy)


def test_strong_regularization_is_chosen_if_needed() -> None:
    # A third as many features as images, and all but one of them noise.
    train, train_labels = gaussians(2500, 7, width=800, distance=1.5)
    test, test_labels = gaussians(4000, 8, width=800, distance=1.5)
    probe = linear_probe_accuracy(train, train_labels, test, test_labels)
    assert probe.regularization <= 1e-2
    assert probe.accuracy > 0.6


def test_random_labels_give_chance() -> None:
    train, _ = gaussians(1000, 9)
    test, _ = gaussians(4000, 10)
    generator = np.random.default_rng(11)
    probe = linear_probe_accuracy(
        train, generator.integers(0, 4, 1000), test, generator.integers(0, 4, 4000)
    )
    assert 0.2 < probe.accuracy < 0.3


def test_constant_features_are_ignored() -> None:
    train, train_labels = gaussians(300, 12)
    test, test_labels = gaussians(300, 13)
    plain = linear_probe_accuracy(train, train_labels, test, test_labels)
    last_bits = np.random.default_rng(19).integers(-1, 2, (300, 3)) * 2.0**-23
    constant = (0.1 * (1 + last_bits)).astype(np.float32)
    # Divided by the std of rounding errors, another constant on the test images would be huge.
    probe = linear_probe_accuracy(
        np.hstack([train, constant]), train_labels, np.hstack([test, constant + 1]), test_labels
    )
    assert probe.accuracy == pytest.approx(plain.accuracy, abs=0.004)


def test_a_class_that_is_not_in_training_counts_as_errors() -> None:
    train, train_labels = gaussians(300, 14, distance=20)
    test, test_labels = gaussians(300, 15, distance=20)
    unseen = test_labels.copy()
    unseen[:30] = 5
    assert linear_probe_accuracy(train, train_labels, test, unseen).accuracy == 0.9


def test_no_more_images_than_allowed_are_used() -> None:
    train, train_labels = gaussians(400, 16)
    test, test_labels = gaussians(2000, 17)
    all_of_them = linear_probe_accuracy(train, train_labels, test, test_labels)
    few = linear_probe_accuracy(train, train_labels, test, test_labels, max_images=20)
    again = linear_probe_accuracy(train, train_labels, test, test_labels, max_images=20)
    assert few == again
    # A fifth of 20 is 4 images: the validation accuracies are quarters.
    assert all((4 * accuracy).is_integer() for accuracy in few.validation.values())
    assert not all((4 * accuracy).is_integer() for accuracy in all_of_them.validation.values())


def test_bad_input_is_named() -> None:
    train, labels = gaussians(50, 18)
    with pytest.raises(NonegError, match="two classes"):
        linear_probe_accuracy(train, np.zeros(50, dtype=np.int64), train, labels)
    with pytest.raises(NonegError, match="two classes"):
        linear_probe_accuracy(train[:2], np.array([0, 1]), train, labels)
    broken = train.copy()
    broken[3, 1] = np.nan
    with pytest.raises(NonegError, match="training features, they hold NaN"):
        linear_probe_accuracy(broken, labels, train, labels)
    with pytest.raises(NonegError, match="test features, there are none"):
        linear_probe_accuracy(train, labels, train[:0], labels[:0])
