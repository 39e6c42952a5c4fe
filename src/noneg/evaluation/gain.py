"""Did training help? The trained encoder against the one that it began with, on the same images."""

import math
from collections.abc import Mapping
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


LARGEST_CHANGE_OF_SPREAD = 1.35
"""Of the spread of features, as a factor: beyond it, training has changed too much of the start."""


@final
@dataclass(frozen=True)
class LabelFreeGain:
    """A comparison of two encoders without labels.

    Attributes:
        outcome: what training probably did to the encoder.
        found: how often the trained encoder finds a view's image among all, in [0, 1].
        found_before: how often the start did.
        error: standard error of the difference, at most.
        spread: standard deviation of the normalized features, trained over start.
    """

    outcome: Outcome
    found: float
    found_before: float
    error: float
    spread: float

    def describe(self) -> str:
        """A sentence."""
        facts = (
            f"a view's image is found in {self.found:.1%} of cases, by the start in "
            f"{self.found_before:.1%} (standard error {self.error:.1%}), and features spread "
            f"{self.spread:.2f} times as much"
        )
        if self.outcome == "no difference":
            return f"without labels, no difference from the start: {facts}"
        return f"without labels, training probably {self.outcome}: {facts}"


def gain_without_labels(
    trained: Mapping[str, float], start: Mapping[str, float], images: int
) -> LabelFreeGain | None:
    """Compare label-free meters of `h`, on the same views of the same images.

    Training helped if views find their images more often, and harmed if less often, by more than
    two standard errors; and it harmed if the features spread much more or much less, which is how
    too large learning rates and moved batch statistics show. How often that is right was measured:
    docs/should-you-train.md.

    Args:
        trained: by name, of the encoder after training.
        start: of the encoder before.
        images: how many images were measured.

    Returns:
        None if a meter is missing or not finite.
    """
    found, before = (meters.get("view_retrieval", math.nan) for meters in (trained, start))
    spreads = [meters.get("std", math.nan) for meters in (trained, start)]
    if not all(map(math.isfinite, (found, before, *spreads))) or spreads[1] <= 0 or images < 1:
        return None
    # The views of one image are not independent, so the images are counted, and not the views.
    error = math.sqrt((found * (1 - found) + before * (1 - before)) / images)
    spread = spreads[0] / spreads[1]
    outcome: Outcome = "no difference"
    stays = 1 / LARGEST_CHANGE_OF_SPREAD <= spread <= LARGEST_CHANGE_OF_SPREAD
    if not stays or before - found > ERRORS * error:
        outcome = "harmed"
    elif found - before > ERRORS * error:
        outcome = "helped"
    return LabelFreeGain(outcome, found, before, error, spread)


def _normal(deviations: float) -> float:
    """Share of a normal distribution below this many standard deviations."""
    return (1 + math.erf(deviations / math.sqrt(2))) / 2
