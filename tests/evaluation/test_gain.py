"""The paired comparison of an encoder with the one that it began with."""

import numpy as np
import pytest

from noneg.errors import NonegError
from noneg.evaluation.gain import gain_over, gain_without_labels
from noneg.evaluation.scores import Score


def score(name: str, knn: np.ndarray, linear: np.ndarray) -> Score:
    correct = np.stack([knn, linear])
    return Score(name, float(knn.mean()), float(linear.mean()), 8, 0.0, correct=correct)


def test_difference_error_and_certainty_in_closed_form() -> None:
    """Of 400 images, 40 are gained by both probes, 10 are lost by both."""
    start, trained = np.zeros(400, dtype=bool), np.zeros(400, dtype=bool)
    trained[:40] = start[40:50] = True
    gain = gain_over(score("trained", trained, trained), score("start", start, start))
    assert (gain.difference, gain.knn, gain.linear) == pytest.approx((30 / 400,) * 3)
    variance = (50 - 30**2 / 400) / 399
    assert gain.error == pytest.approx((variance / 400) ** 0.5)
    assert gain.outcome == "helped"
    assert gain.certainty > 0.999
    lost = gain_over(score("trained", start, start), score("start", trained, trained))
    assert (lost.outcome, lost.difference) == ("harmed", pytest.approx(-30 / 400))
    assert lost.certainty == pytest.approx(gain.certainty)
    assert "training harmed: -7.5 points" in lost.describe()


def test_images_on_which_both_agree_do_not_add_to_the_error() -> None:
    """As many differences among more images: the same number of standard errors."""
    rng = np.random.default_rng(0)
    start = rng.random(300) < 0.6
    trained = start.copy()
    trained[:12] = True
    more = np.concatenate([trained, rng.random(3000) < 0.5])
    before = np.concatenate([start, more[300:]])
    few = gain_over(score("a", trained, trained), score("b", start, start))
    many = gain_over(score("a", more, more), score("b", before, before))
    assert many.difference / many.error == pytest.approx(few.difference / few.error, rel=0.05)


def test_chance_is_no_difference_in_nineteen_of_twenty() -> None:
    """The negative control: two encoders of equal accuracy."""
    rng = np.random.default_rng(1)
    outcomes = []
    for _ in range(400):
        draws = [rng.random(500) < 0.7 for _ in range(4)]
        outcomes.append(gain_over(score("a", *draws[:2]), score("b", *draws[2:])).outcome)
    share = outcomes.count("no difference") / 400
    assert 0.92 < share < 0.985
    assert 0.3 < outcomes.count("helped") / (400 - outcomes.count("no difference")) < 0.7


def test_the_same_encoder_is_no_difference_and_a_coin_toss() -> None:
    correct = np.arange(50) % 3 == 0
    gain = gain_over(score("a", correct, correct), score("b", correct, correct))
    assert (gain.outcome, gain.difference, gain.certainty) == ("no difference", 0.0, 0.5)
    assert "no difference from the start beyond chance" in gain.describe()


def test_probes_may_disagree() -> None:
    """One probe gains what the other loses."""
    yes, no = np.ones(100, dtype=bool), np.zeros(100, dtype=bool)
    gain = gain_over(score("a", yes, no), score("b", no, yes))
    assert (gain.knn, gain.linear, gain.difference) == (1.0, -1.0, 0.0)
    assert gain.outcome == "no difference"


def test_scores_of_other_images_are_refused() -> None:
    one, other = np.ones(10, dtype=bool), np.ones(12, dtype=bool)
    with pytest.raises(NonegError, match="scored on 10 and 12 images"):
        gain_over(score("a", one, one), score("b", other, other))
    read = Score("start", 0.5, 0.5, 8, 0.5)
    with pytest.raises(NonegError, match="read from a file"):
        gain_over(score("a", one, one), read)


@pytest.mark.parametrize(
    ("found", "spread", "outcome"),
    [
        (0.80, 1.0, "helped"),
        (0.76, 0.9, "no difference"),
        (0.70, 1.1, "no difference"),
        (0.60, 1.0, "harmed"),
        # Views find their images, and yet the features are not those of the start any more.
        (0.90, 0.6, "harmed"),
        (0.90, 1.5, "harmed"),
    ],
)
def test_without_labels_views_must_find_their_images_and_features_stay_spread(
    found: float, spread: float, outcome: str
) -> None:
    start = {"view_retrieval": 0.70, "std": 0.8}
    gain = gain_without_labels({"view_retrieval": found, "std": 0.8 * spread}, start, 400)
    assert gain is not None
    assert gain.outcome == outcome
    assert gain.spread == pytest.approx(spread)
    assert outcome in gain.describe()
    expected = ((found * (1 - found) + 0.7 * 0.3) / 400) ** 0.5
    assert gain.error == pytest.approx(expected)


def test_without_the_meters_nothing_is_said() -> None:
    good = {"view_retrieval": 0.7, "std": 0.8}
    for bad in ({}, {**good, "std": float("nan")}, {"std": 0.8}):
        assert gain_without_labels(bad, good, 100) is None
        assert gain_without_labels(good, bad, 100) is None
    flat = {**good, "std": 0.0}
    assert gain_without_labels(good, flat, 100) is None
    collapsed = gain_without_labels(flat, good, 100)
    assert collapsed is not None
    assert collapsed.outcome == "harmed"
    assert gain_without_labels(good, good, 0) is None
