"""The linear probe: how much of the classes can a plane through the features tell?"""

import warnings
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float, Float32, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from noneg.errors import NonegError
from noneg.evaluation.splits import every_fifth

GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
SEARCH_IMAGES = 10_000
ITERATIONS = 200


@final
@dataclass(frozen=True)
class LinearProbe:
    """What a linear probe found.

    Attributes:
        accuracy: on the test images, in [0, 1].
        regularization: scikit-learn's C, the inverse strength, that was chosen.
        validation: for each C tried, the accuracy on the held-out training images, in [0, 1].
    """

    accuracy: float
    regularization: float
    validation: dict[float, float]


def linear_probe_accuracy(
    train: Float[np.ndarray, "train width"],
    train_labels: Int[np.ndarray, " train"],
    test: Float[np.ndarray, "test width"],
    test_labels: Int[np.ndarray, " test"],
    *,
    seed: int = 0,
    max_images: int = 50_000,
) -> LinearProbe:
    """Multinomial logistic regression on frozen features, regularised as suits them.

    Features are standardised with the training images' mean and standard deviation. C is chosen
    from `GRID` on a held-out, stratified fifth of the training images (of at most 10,000 of them),
    then all training images are fitted with it. The test images choose nothing.

    A fit stops after 200 iterations of L-BFGS, converged or not.

    Args:
        train: features [N, D].
        train_labels: classes [N].
        test: features [M, D].
        test_labels: classes [M]; a class that training lacks counts as errors.
        seed: of the held-out fifth and of which images are taken where there are too many.
        max_images: train on a random choice of so many; bounds time and memory.

    Raises:
        NonegError: fewer than two classes, too few images, or features that are not finite.
    """
    for name, features in (("training", train), ("test", test)):
        if len(features) == 0 or not np.isfinite(features).all():
            fault = "there are none" if len(features) == 0 else "they hold NaN or infinite values"
            raise NonegError(
                f"A linear probe cannot use the {name} features, {fault}; add images, or look for "
                f"where the training diverged."
            )
    if len(train) > max_images:
        chosen = np.sort(np.random.default_rng(seed).choice(len(train), max_images, replace=False))
        train, train_labels = train[chosen], train_labels[chosen]
    train, test = _standardised(train, test)
    regularization, validation = _search(train, train_labels, seed)
    probe = LogisticRegression(C=regularization, max_iter=ITERATIONS)
    _fit(probe, train, train_labels)
    accuracy = float(np.mean(probe.predict(test) == test_labels))
    return LinearProbe(accuracy, regularization, validation)


def _standardised(
    train: Float[np.ndarray, "train width"], test: Float[np.ndarray, "test width"]
) -> tuple[Float32[np.ndarray, "train width"], Float32[np.ndarray, "test width"]]:
    mean = train.mean(axis=0, dtype=np.float64)
    std = train.std(axis=0, dtype=np.float64)
    # A constant feature has a std of rounding errors, and dividing by it would make them features.
    std[std <= 1e-6 * np.abs(mean)] = np.inf
    std[std == 0] = np.inf
    scale, shift = (1 / std).astype(np.float32), mean.astype(np.float32)
    return (
        (train.astype(np.float32) - shift) * scale,
        (test.astype(np.float32) - shift) * scale,
    )


def _search(
    features: Float32[np.ndarray, "train width"], labels: Int[np.ndarray, " train"], seed: int
) -> tuple[float, dict[float, float]]:
    if len(features) > SEARCH_IMAGES:
        generator = np.random.default_rng(seed)
        chosen = generator.choice(len(features), SEARCH_IMAGES, replace=False)
        features, labels = features[chosen], labels[chosen]
    held_out = every_fifth(labels, seed=seed)
    if len(np.unique(labels[~held_out])) < 2 or not held_out.any():
        raise NonegError(
            f"A linear probe needs training images of at least two classes, several of each, "
            f"but got {len(labels)} images of {len(np.unique(labels))}; add labelled images."
        )
    # From strong to weak regularisation, each fit starts where the last one ended.
    probe = LogisticRegression(max_iter=ITERATIONS, warm_start=True)
    validation: dict[float, float] = {}
    for regularization in GRID:
        probe.set_params(C=regularization)
        _fit(probe, features[~held_out], labels[~held_out])
        predicted = probe.predict(features[held_out])
        validation[regularization] = float(np.mean(predicted == labels[held_out]))
    # Of equals the strongest regularisation.
    return max(GRID, key=lambda regularization: validation[regularization]), validation


def _fit(
    probe: LogisticRegression,
    features: Float32[np.ndarray, "train width"],
    labels: Int[np.ndarray, " train"],
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(features, labels)
