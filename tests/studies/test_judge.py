"""How claims are decided, on made-up results."""

from dataclasses import replace
from pathlib import Path

import pytest
from made_up import result, results, seeds, write_curves

from noneg.experiments.judge import (
    close,
    collapses,
    distance_left,
    every,
    higher,
    is_collapsed,
    loses_more,
    survives,
)
from noneg.experiments.results import Results
from noneg.experiments.study import Outcome

DIVERGED = "the loss is nan at step 3"


@pytest.mark.parametrize(
    ("one", "other", "by", "holds"),
    [
        ([0.60, 0.61, 0.62], [0.50, 0.52, 0.51], 0.0, True),
        ([0.50, 0.52, 0.51], [0.60, 0.61, 0.62], 0.0, False),
        ([0.50, 0.60, 0.55], [0.55, 0.52, 0.56], 0.0, None),
        # Paired by seed, so variation that both share does not count as spread.
        ([0.20, 0.50, 0.80], [0.18, 0.48, 0.78], 0.0, True),
        # `by`: 2 points are not more than 5, and 2 points lower is above 5 points lower.
        ([0.62, 0.63], [0.60, 0.61], 0.05, False),
        ([0.60, 0.61], [0.62, 0.63], -0.05, True),
        ([0.60], [0.50], 0.0, None),
    ],
)
def test_higher(one: list[float], other: list[float], by: float, holds: bool | None) -> None:
    made = results(seeds("one", one), seeds("other", other))
    assert higher("one", "other", by=by)(made).holds is holds


def test_higher_at_exactly_two_standard_errors_is_within_the_spread() -> None:
    """The closed form: differences 1 and 3 have the mean 2 and the standard error 1."""
    for shift, holds in ((0.0, None), (0.01, True), (-4.0, None), (-4.01, False)):
        made = results(
            seeds("one", [1 + shift, 3 + shift], "loss"), seeds("other", [0.0, 0.0], "loss")
        )
        outcome = higher("one", "other", "loss")(made)
        assert outcome.holds is holds, shift
        assert outcome.reason.startswith("within two standard errors: ") == (holds is None)


def test_two_seeds_that_agree_by_chance_prove_nothing() -> None:
    """Differences of one point and one point have no spread, and no more images than others."""
    made = results(seeds("one", [0.21, 0.22]), seeds("other", [0.20, 0.21]))
    assert higher("one", "other")(made).holds is None
    made = results(seeds("one", [0.22, 0.23]), seeds("other", [0.20, 0.21]))
    assert higher("one", "other")(made).holds is True


def test_the_reason_has_the_means_the_error_and_n() -> None:
    made = results(seeds("one", [0.61, 0.63]), seeds("other", [0.50, 0.50]))
    assert higher("one", "other")(made).reason == (
        "62.0 % (one) against 50.0 % (other), difference 12.0 % with a standard error of 1.0 %, "
        "n = 2"
    )


@pytest.mark.parametrize(
    ("small", "holds"),
    # From 60 and 62 %, where the other goes from 50 to 45 %.
    [([0.40, 0.43], True), ([0.57, 0.59], False), ([0.50, 0.60], None), ([0.40], None)],
)
def test_loses_more(small: list[float], holds: bool | None) -> None:
    """A lower accuracy is not a larger loss: the control is lower at either end."""
    made = results(
        seeds("one, 64", [0.60, 0.62]),
        seeds("one, 16", small),
        seeds("other, 64", [0.50, 0.50]),
        seeds("other, 16", [0.45, 0.45]),
    )
    outcome = loses_more(("one, 64", "one, 16"), ("other, 64", "other, 16"))(made)
    assert outcome.holds is holds


@pytest.mark.parametrize(
    ("other", "holds"),
    [([0.50, 0.51], True), ([0.70, 0.71], False), ([0.53, 0.52], None), ([0.5], None)],
)
def test_close(other: list[float], holds: bool | None) -> None:
    made = results(seeds("one", [0.50, 0.50]), seeds("other", other))
    assert close("one", "other", within=0.03)(made).holds is holds
    assert close("other", "one", within=0.03)(made).holds is holds


@pytest.mark.parametrize(
    ("numbers", "collapsed"),
    [
        ({}, False),
        ({"std_z": 0.09}, True),
        ({"std_h": 0.09}, True),
        ({"std_z": 0.11}, False),
        ({"effective_rank_z": 2.0}, True),
        ({"effective_rank_h": 1.0}, True),
        ({"effective_rank_z": 2.4}, False),
    ],
)
def test_what_collapse_is(numbers: dict[str, float], collapsed: bool) -> None:
    assert is_collapsed(result("one", **numbers)) is collapsed


def test_shrinking_to_a_point_is_collapse_too(tmp_path: Path) -> None:
    """|h| falls to a tenth, so distances do to a hundredth; with as much again in its cosine."""
    healthy = {"norm_z": [1.0, 1.0], "mean_cosine_z": [0.5, 0.5]}
    for norm, cosine, left in ((0.1, 0.5, 0.01), (1.0, 0.99, 0.02), (0.5, 0.5, 0.25)):
        curves = {"norm_h": [1.0, norm], "mean_cosine_h": [0.5, cosine], **healthy}
        row = replace(result("one"), directory=write_curves(tmp_path, curves))
        assert distance_left(row) == pytest.approx(left)
        assert is_collapsed(row) == (left < 0.019)


def test_collapses_and_survives() -> None:
    good = [result("good", seed) for seed in range(2)]
    bad = [result("bad", seed, std_z=0.01) for seed in range(2)]
    mixed = [result("mixed", 0), result("mixed", 1, std_z=0.01)]
    made = results(good, bad, mixed, [result("once")])
    assert collapses("bad")(made).holds is True
    assert survives("bad")(made).holds is False
    assert survives("good")(made).holds is True
    assert collapses("good")(made).holds is False
    # Each seed of each variant must.
    assert collapses("mixed")(made).holds is False
    assert survives("mixed")(made).holds is False
    assert collapses("bad", "good")(made).holds is False
    for name in ("once", "never"):
        assert survives(name)(made) == Outcome(
            None, f"not enough runs: {1 if name == 'once' else 0} of 2 seeds of {name}"
        )


def test_a_run_that_diverged_neither_collapses_nor_survives() -> None:
    gone = [result("gone", seed, DIVERGED, std_z=0.01) for seed in range(2)]
    half = [result("half", 0), result("half", 1, DIVERGED)]
    made = results(gone, half)
    for name in ("gone", "half"):
        for criterion in (collapses(name), survives(name)):
            outcome = criterion(made)
            assert outcome.holds is False
            assert "diverged" in outcome.reason


def test_a_run_that_diverged_has_no_last_numbers() -> None:
    """Its loss before it did is no result, and what is not finite is none either."""
    one = [*seeds("one", [3.0, 3.1], "loss"), result("one", 2, DIVERGED, loss=1e30)]
    other = seeds("other", [1.0, 1.1, float("nan")], "loss")
    made = results(one, other)
    assert made.values("one", "loss") == [3.0, 3.1]
    assert made.values("other", "loss") == [1.0, 1.1]
    assert made.paired("one", "other", "loss") == pytest.approx({0: 2.0, 1: 2.0})
    assert higher("one", "other", "loss")(made).holds is True


@pytest.mark.parametrize(
    ("verdicts", "expected", "reason"),
    [
        ([True, True], True, "0; 1"),
        ([True, None], None, "1"),
        ([None, False, True], False, "1"),
        ([False, False], False, "0; 1"),
    ],
)
def test_every(verdicts: list[bool | None], expected: bool | None, reason: str) -> None:
    outcomes = [Outcome(each, str(number)) for number, each in enumerate(verdicts)]
    criteria = [lambda _, outcome=outcome: outcome for outcome in outcomes]
    assert every(*criteria)(Results(())) == Outcome(expected, reason)
