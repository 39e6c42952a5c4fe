"""Verdicts on constructed curves name what is wrong, and the number that shows it."""

import math
from collections.abc import Mapping
from typing import Any

import pytest

from noneg.diagnostics import State, Verdict, judge, judge_end
from noneg.diagnostics.verdict import (
    DISTANCE_LEFT,
    EXPLODED,
    FEW_DIRECTIONS,
    OF_THE_START,
    SAME_DIRECTION,
    separation,
)

SOUND = {
    "mean_cosine_h": 0.3,
    "participation_ratio_h": 12.0,
    "norm_h": 10.0,
    "alignment_h": 1.0,
    "mean_cosine_z": 0.1,
    "participation_ratio_z": 20.0,
    "norm_z": 12.0,
    "alignment_z": 1.0,
}


def history(steps: int = 100, **ends: float) -> list[dict[str, float]]:
    """Eleven rows that go from healthy numbers to the given ones in five; views agree ever more."""
    rows = []
    for number in range(11):
        share = min(1.0, max(0, number - 1) / 4)
        end = {**SOUND, "alignment_h": 0.5, **ends}
        row = {name: SOUND[name] + share * (end[name] - SOUND[name]) for name in SOUND}
        rows.append({"step": float(max(1, number * steps // 10)), **row})
    return rows


@pytest.mark.parametrize(
    ("state", "ends"),
    [
        ("healthy", {}),
        ("complete collapse", {"mean_cosine_h": 0.99, "mean_cosine_z": 0.99}),
        ("complete collapse", {"mean_cosine_h": 0.99}),
        ("projector only", {"mean_cosine_z": 0.99}),
        # Directions contract a little while the vectors shrink, as with a squared error.
        ("complete collapse", {"mean_cosine_h": 0.6, "norm_h": 1.0}),
        ("projector only", {"mean_cosine_z": 0.6, "norm_z": 1.0}),
        # A loss on normalized vectors leaves the scale free.
        ("healthy", {"norm_h": 0.5, "norm_z": 0.5}),
        ("dimensional collapse", {"participation_ratio_h": 1.2}),
        ("projector only", {"participation_ratio_z": 1.2}),
        ("exploding scale", {"norm_z": 1e6}),
        ("exploding scale", {"norm_h": 1e6}),
        ("exploding scale", {"norm_h": math.nan}),
        ("not learning", {"alignment_h": 1.0}),
        # Views agree more, and different images just as much more.
        ("not learning", {"alignment_h": 0.5, "mean_cosine_h": 0.65}),
    ],
)
def test_what_is_wrong_is_named(state: str, ends: dict[str, float]) -> None:
    verdict = judge(history(**ends), total_steps=100)
    assert verdict.state == state
    assert verdict.is_alarm == (state != "healthy")
    assert verdict.needs_action == (
        state not in ("healthy", "not learning") and ends != {"participation_ratio_z": 1.2}
    )


def test_a_methods_own_failure_is_told() -> None:
    def single(row: Mapping[str, float]) -> tuple[State, str] | None:
        return ("projector only", "One for all.") if row["norm_h"] > 9 else None

    def uniform(row: Mapping[str, float]) -> tuple[State, str] | None:
        return ("not learning", "All alike.") if row["norm_h"] > 9 else None

    assert judge(history(), 100, own_failure=single).state == "projector only"
    assert judge(history(), 100, own_failure=single).sentence == "One for all."
    assert judge(history(norm_h=8.0), 100, own_failure=single).state == "healthy"
    # Targets are alike in many sound runs for a while: reported from two thirds of the run on.
    assert judge(history(), 100, own_failure=uniform).sentence == "All alike."
    assert judge(history(), 200, own_failure=uniform).state == "healthy"
    # What the embeddings show comes first, and may be acted on.
    both = judge(history(mean_cosine_z=0.99), 200, own_failure=uniform)
    assert (both.state, both.needs_action) == ("projector only", True)
    assert both.sentence.endswith("the encoder itself still tells them apart. All alike.")


def test_the_worse_comes_first() -> None:
    """A collapsed embedding also has few directions, and learns nothing."""
    ends = {
        "mean_cosine_h": 0.99,
        "mean_cosine_z": 0.99,
        "participation_ratio_h": 1.0,
        "alignment_h": 0.02,
    }
    assert judge(history(**ends), 100).state == "complete collapse"
    assert judge(history(**ends, norm_h=1e7), 100).state == "exploding scale"


@pytest.mark.parametrize(
    ("name", "threshold", "beyond", "state"),
    [
        ("mean_cosine_h", SAME_DIRECTION, +1, "complete collapse"),
        ("mean_cosine_z", SAME_DIRECTION, +1, "projector only"),
        ("participation_ratio_h", FEW_DIRECTIONS, -1, "dimensional collapse"),
        ("participation_ratio_z", FEW_DIRECTIONS, -1, "projector only"),
        ("norm_h", EXPLODED * SOUND["norm_h"], +1, "exploding scale"),
    ],
)
def test_thresholds_are_where_they_are_said_to_be(
    name: str, threshold: float, beyond: int, state: str
) -> None:
    # Views agree far better, so the run has learned; twice the length keeps distances.
    ends = {"alignment_h": 0.01, "norm_h": 20.0, "norm_z": 24.0}
    past = history(**{**ends, name: threshold * (1 + beyond * 0.01)})
    short = history(**{**ends, name: threshold * (1 - beyond * 0.01)})
    assert judge(past, 100).state == state
    assert judge(short, 100).state == "healthy"


def test_a_single_odd_row_is_no_alarm() -> None:
    rows = history()
    rows[-1] = rows[-1] | {"mean_cosine_h": 1.0, "participation_ratio_h": 1.0}
    assert judge(rows, 100).state == "healthy"
    rows[-2] = rows[-2] | {"mean_cosine_h": 1.0, "participation_ratio_h": 1.0}
    assert judge(rows, 100).state == "complete collapse"


def test_zero_vectors_have_no_direction_and_are_alike() -> None:
    rows = history()
    for row in rows[5:]:
        row |= {"mean_cosine_h": math.nan, "norm_h": 0.0, "alignment_h": 0.0}
    assert judge(rows, 100).state == "complete collapse"


def test_it_takes_time_to_say_anything() -> None:
    collapsed = history(mean_cosine_h=1.0)
    assert [judge(collapsed[:end], 100).state for end in (1, 3)] == ["too early to say"] * 2
    standing_still = history(alignment_h=1.0)
    assert judge(standing_still[:4], 1000).state == "too early to say"
    assert judge(standing_still, 1000).state == "too early to say"
    assert judge(standing_still, 100).state == "not learning"
    # Known weights need not learn to tell images apart; they can collapse all the same.
    assert judge(standing_still, 100, begins_trained=True).state == "healthy"
    assert judge(collapsed, 100, begins_trained=True).state == "complete collapse"
    # A collapse is reported at once.
    assert judge(collapsed, 10_000).state == "complete collapse"


def test_the_numbers_are_those_of_the_sentence() -> None:
    verdict = judge(history(participation_ratio_h=1.25), 100)
    assert verdict.numbers["participation_ratio_h"] == pytest.approx(1.25)
    assert "1.2" in verdict.sentence
    gain: Any = judge(history(), 100).numbers["separation_gain_h"]
    assert gain == pytest.approx(2)


def test_what_was_so_from_the_start_is_no_collapse() -> None:
    """Networks without BatchNorm start with embeddings that nearly share a direction."""
    alike = {"mean_cosine_h": 0.97, "participation_ratio_h": 1.5}
    rows = [row | alike for row in history()]
    assert judge(rows, 100).state == "healthy"
    for row in rows[5:]:
        row["mean_cosine_h"] = 0.99
    assert judge(rows, 100).state == "complete collapse"


def test_a_continued_run_is_compared_with_the_untrained_network() -> None:
    first_run = history()
    trained = {**SOUND, "alignment_h": 0.5}
    unchanged = [{"step": float(step), **trained} for step in range(10, 101, 10)]
    # By itself it would look as if it learned nothing.
    assert judge(unchanged, 100).state == "not learning"
    assert judge(unchanged, 100, first_run[:2]).state == "healthy"
    assert judge(unchanged[:3], 100, first_run[:2]).state == "too early to say"
    collapsed = [{**row, "mean_cosine_h": 0.99} for row in unchanged]
    assert judge(collapsed, 100).state == "not learning"
    assert judge(collapsed, 100, first_run[:2]).state == "complete collapse"


def test_the_end_is_judged_beside_the_start() -> None:
    sound, standing = judge(history(), 100), judge(history(alignment_h=1.0), 100)
    collapsed = judge(history(mean_cosine_h=0.99), 100)
    at_start, found = {"view_retrieval": 0.02}, {"view_retrieval": 0.04}
    same = {"view_retrieval": 0.021}

    def end(verdict: Verdict, now: dict[str, float], before: dict[str, float]) -> Verdict:
        return judge_end(verdict, now, before, searches=3000)

    assert end(sound, found, at_start).state == "healthy"
    assert end(standing, found, at_start).state == "healthy"
    assert end(sound, same, at_start).state == "not learning"
    # Odds leave room at the top: 0.5 is 1, and 0.6 is 1.5.
    assert end(sound, {"view_retrieval": 0.6}, {"view_retrieval": 0.5}).state == "healthy"
    # A collapsed run stays collapsed, whatever its retrieval.
    assert end(collapsed, found, at_start) == collapsed
    # With a projector of one direction, the encoder may have learned something, or not.
    few = judge(history(participation_ratio_z=1.0), 100)
    assert end(few, found, at_start).state == "projector only"
    assert not end(few, found, at_start).needs_action
    assert end(few, same, at_start).needs_action
    alike = judge(history(mean_cosine_z=0.99), 100)
    assert not end(alike, found, at_start).needs_action
    assert end(sound, found, {"view_retrieval": 0.0}).state == "healthy"
    assert end(sound, at_start | {"view_retrieval": 0.0}, at_start).state == "not learning"
    # Nine and five of 3,000 views found: too few to compare.
    rare, rarer = {"view_retrieval": 0.003}, {"view_retrieval": 0.0017}
    assert end(sound, rarer, rare) == sound
    assert judge_end(sound, rarer, rare, searches=30_000).state == "not learning"


def test_distance_counts_where_directions_contracted_too() -> None:
    distance = DISTANCE_LEFT * 0.99
    # |h|^2 (1 - cos) against 100 * 0.7 at the start.
    for contracted, state in ((0.75, "complete collapse"), (0.85, "healthy")):
        cosine = 1 - contracted * 0.7 / OF_THE_START * 0.8
        norm = (distance * 100 * 0.7 / (1 - cosine)) ** 0.5
        ends = {"mean_cosine_h": cosine, "norm_h": norm, "alignment_h": 0.1}
        assert judge(history(**ends), 100).state == state


def test_separation_is_one_where_views_are_as_far_apart_as_images() -> None:
    # Orthogonal unit vectors: squared distance 2.
    assert separation({"mean_cosine_h": 0.0, "alignment_h": 2.0}) == 1
    assert separation({"mean_cosine_h": 0.5, "alignment_h": 0.1}) == pytest.approx(10)
    assert separation({"mean_cosine_h": 1.0, "alignment_h": 0.1}) == 0
    assert separation({"mean_cosine_h": 0.5, "alignment_h": 0.0}) == math.inf
