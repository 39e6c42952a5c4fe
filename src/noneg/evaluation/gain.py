"""Did training help? The trained encoder against the one that it began with, on the same images."""

import math
from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from noneg.errors import NonegError
from noneg.evaluation.scores import Score

Outcome = Literal["helped", "no difference", "harmed"]

ERRORS = 2.0
"""Standard errors beyond which a difference counts; by chance one in 22 does."""


@final
@dataclass(frozen=True)
class Gain:
    """A paired comparison of two encoders with labels.

    Attributes:
        outcome: what training did to the encoder.
        difference: of the accuracies of the two probes on average, trained minus start, in [-1, 1].
        error: its standard error over the test images.
        certainty: probability that a normal variable of this mean and error has the sign of the
            difference, in [0.5, 1]. It counts the choice of test images only: another seed of the
            training, and another choice of labels to learn from, come on top.
        knn: difference of the nearest-neighbor accuracies.
        linear: difference of the linear probes' accuracies.
    """

    outcome: Outcome
    difference: float
    error: float
    certainty: float
    knn: float
    linear: float

    def describe(self) -> str:
        """A sentence."""
        points = f"{100 * self.difference:+.1f} points (kNN {100 * self.knn:+.1f}, linear "
        points += f"{100 * self.linear:+.1f}), standard error {100 * self.error:.1f}"
        if self.outcome == "no difference":
            return f"no difference from the start beyond chance: {points}"
        return f"training {self.outcome}: {points}; {self.certainty:.0%} sure"


def gain_over(trained: Score, start: Score) -> Gain:
    """Compare two scores of the same test images, image by image.

    An image counts as the share of the two probes that classify it correctly. The difference per
    image is averaged, so images on which both encoders agree add nothing to the error.

    Args:
        trained: of the encoder after training.
        start: of the encoder before.

    Raises:
        NonegError: the scores are not of the same images.
    """
    if trained.correct is None or start.correct is None:
        raise NonegError("scores that were read from a file do not say which images were correct")
    if trained.correct.shape != start.correct.shape:
        raise NonegError(
            f"the two encoders were scored on {trained.correct.shape[1]} and "
            f"{start.correct.shape[1]} images: score both on the same"
        )
    each = (trained.correct.astype(np.float64) - start.correct).mean(axis=0)
    difference = float(each.mean())
    error = float(each.std(ddof=1) / math.sqrt(len(each))) if len(each) > 1 else math.inf
    sure = 0.5 if difference == 0 else 1.0 if error == 0 else _normal(abs(difference) / error)
    outcome: Outcome = "no difference"
    if abs(difference) > ERRORS * error:
        outcome = "helped" if difference > 0 else "harmed"
    return Gain(
        outcome, difference, error, sure, trained.knn - start.knn, trained.linear - start.linear
    )


def _normal(deviations: float) -> float:
    """Share of a normal distribution below this many standard deviations."""
    return (1 + math.erf(deviations / math.sqrt(2))) / 2
