"""Is it worth labeling more? Accuracy against the number of labels, for several features."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float32, Int64

from noneg.classifier.fit import PROBE_REGULARIZATION, accuracy, fit_probe
from noneg.errors import NonegError

PER_CLASS = (1, 5, 10, 50)
SEEDS = 5


Learner = Callable[[np.ndarray, np.ndarray, np.ndarray, int], float]
"""Accuracy on the test images of anything that learns from labeled images.

It gets the places in the bank [L], their classes from 0 [L], the classes of the test images [M] (-1
for one that no image of the bank has), and the number of the choice.
"""


@final
@dataclass(frozen=True)
class Point:
    """The accuracy of linear probes on so many labels.

    Attributes:
        features: their name.
        per_class: labels of each class; None for all.
        labels: labels in total.
        accuracies: in [0, 1], one per choice of the labeled images.
    """

    features: str
    per_class: int | None
    labels: int
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the choices."""
        return float(np.mean(self.accuracies))

    @property
    def interval(self) -> float:
        """Half of a 95 % interval of the mean, by Student's distribution; 0 for one choice."""
        count = len(self.accuracies)
        if count < 2:
            return 0.0
        from scipy.stats import t

        spread = float(np.std(self.accuracies, ddof=1))
        quantile = float(t.ppf(0.975, count - 1))
        return quantile * spread / math.sqrt(count)


def label_curve(
    bank: Mapping[str, Float32[np.ndarray, "bank _"]],
    bank_labels: Int64[np.ndarray, " bank"],
    test: Mapping[str, Float32[np.ndarray, "test _"]],
    test_labels: Int64[np.ndarray, " test"],
    *,
    per_class: Sequence[int] = PER_CLASS,
    seeds: int = SEEDS,
    others: Mapping[str, Learner] | None = None,
) -> list[Point]:
    """Linear probes on random choices of labeled images, the same choices for all features.

    Args:
        bank: features of the images to choose from, by name, each [N, D].
        bank_labels: their classes [N].
        test: features of the images to test on, with the same names.
        test_labels: their classes [M].
        per_class: numbers of labels; those of which a class has fewer are left out.
        seeds: choices for each number.
        others: learners that are not probes, by name.

    Returns:
        A point for each number and, last, for all labels, of each set of features and each learner.

    Raises:
        NonegError: there are fewer than two classes.
    """
    classes, targets = np.unique(bank_labels, return_inverse=True)
    if len(classes) < 2:
        raise NonegError("labels of one class: a curve needs images of at least two classes")
    place = {int(each): number for number, each in enumerate(classes)}
    wanted = np.array([place.get(int(each), -1) for each in test_labels])
    smallest = int(np.bincount(targets).min())
    points = []
    for count in [*(each for each in per_class if each < smallest), None]:
        choices = (
            [np.arange(len(targets))]
            if count is None
            else [_choose(targets, count, seed) for seed in range(seeds)]
        )
        for name in bank:
            accuracies = []
            for chosen in choices:
                weight, bias = fit_probe(bank[name][chosen], targets[chosen], PROBE_REGULARIZATION)
                accuracies.append(accuracy(weight, bias, test[name], wanted))
            points.append(Point(name, count, len(choices[0]), tuple(accuracies)))
        for name, learn in (others or {}).items():
            learned = tuple(
                learn(chosen, targets[chosen], wanted, seed) for seed, chosen in enumerate(choices)
            )
            points.append(Point(name, count, len(choices[0]), learned))
    return points


def _choose(targets: Int64[np.ndarray, " bank"], count: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.concatenate(
        [
            random.permutation(np.flatnonzero(targets == each))[:count]
            for each in range(int(targets.max()) + 1)
        ]
    )


def format_curve(points: Sequence[Point]) -> str:
    """A table for people: a row for each number of labels, a column for each set of features."""
    names = list(dict.fromkeys(point.features for point in points))
    lines = [f"{'labels a class':<14} {'in all':>7}  " + "  ".join(f"{each:>13}" for each in names)]
    for count in dict.fromkeys(point.per_class for point in points):
        row = {point.features: point for point in points if point.per_class == count}
        cells = "  ".join(
            f"{f'{100 * row[each].mean:.1f} +- {100 * row[each].interval:.1f} %':>13}"
            for each in names
        )
        total = next(iter(row.values())).labels
        lines.append(f"{'all' if count is None else count:<14} {total:>7,}  {cells}")
    return "\n".join(lines)
