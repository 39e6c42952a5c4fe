"""How claims are decided: by two seeds at least, and by differences beyond their spread."""

import math
import statistics
from collections.abc import Callable, Sequence

from noneg.experiments.results import ACCURACIES, Result, Results
from noneg.experiments.study import Outcome

COLLAPSED_STD = 0.1
"""Below this the embeddings' directions hardly spread (`noneg.diagnostics.normalized_std`)."""
COLLAPSED_RANK = 2.0
"""At or below this effective rank they lie on a line."""
COLLAPSED_DISTANCE = 0.02
"""Squared distance between different images, as a share of the start's, below which it is gone."""
SEEDS_NEEDED = 2
LEAST_SPREAD = 0.01
"""Of a difference between accuracies: two seeds can agree by chance, and 2,000 test images leave a
standard error of about a point (0.9 points for one accuracy of 20 %)."""

_SHARES = (*ACCURACIES, "distance")

Judge = Callable[[Results], Outcome]


def distance_left(row: Result) -> float:
    """Mean squared distance between images, as a share of the start's: of h or z, the less.

    2 |h|^2 (1 - cos): a mean squared error can also be made small by shrinking all vectors, which
    no meter of directions sees.
    """
    left = [1.0]
    for embedding in ("h", "z"):
        norms, cosines = (row.curve(f"{m}_{embedding}")[1] for m in ("norm", "mean_cosine"))
        distance = [norm**2 * (1 - cosine) for norm, cosine in zip(norms, cosines, strict=True)]
        if distance:
            left.append(distance[-1] / max(distance[0], 1e-12))
    return min(left)


def is_collapsed(row: Result) -> bool:
    """Whether the last embeddings, h or z, point one way, lie on a line, or have met in a point."""
    numbers = row.numbers
    if distance_left(row) < COLLAPSED_DISTANCE:
        return True
    stds = [numbers[name] for name in ("std_h", "std_z") if name in numbers]
    ranks = [numbers[name] for name in ("effective_rank_h", "effective_rank_z") if name in numbers]
    return any(std < COLLAPSED_STD for std in stds) or any(r <= COLLAPSED_RANK for r in ranks)


def collapses(*variants: str) -> Judge:
    """Each of these variants ends collapsed, with every seed."""
    return lambda results: _state(results, variants, True)


def survives(*variants: str) -> Judge:
    """None of these variants ends collapsed, with any seed."""
    return lambda results: _state(results, variants, False)


def _state(results: Results, variants: Sequence[str], wanted: bool) -> Outcome:
    for variant in variants:
        rows = results.of(variant)
        if len(rows) < SEEDS_NEEDED:
            return _too_little(variant, len(rows))
    parts, holds = [], True
    for variant in variants:
        rows = [row for row in results.of(variant) if row.diverged is None]
        lost = len(results.of(variant)) - len(rows)
        count = sum(is_collapsed(row) for row in rows)
        holds = holds and lost == 0 and count == (len(rows) if wanted else 0)
        std, rank = results.mean(variant, "std_z"), results.mean(variant, "effective_rank_z")
        left = statistics.fmean(map(distance_left, rows)) if rows else math.nan
        parts.append(
            f"{variant}: {count} of {len(rows)} collapsed (std of z {std:.2f}, rank {rank:.1f}, "
            f"{_shown('distance', left)} of the distance left)"
            + (f", {lost} diverged" if lost else "")
        )
    return Outcome(holds, "; ".join(parts))


def higher(one: str, other: str, column: str = "knn", *, by: float = 0.0) -> Judge:
    """`one` ends above `other` by more than `by`, seed by seed, beyond twice the standard error."""

    def judge(results: Results) -> Outcome:
        differences = list(results.paired(one, other, column).values())
        count = len(differences)
        if count < SEEDS_NEEDED:
            return _too_little(f"{one} against {other}", count)
        mean = statistics.fmean(differences)
        error = _standard_error(differences, column)
        reason = (
            f"{_shown(column, results.mean(one, column))} ({one}) against "
            f"{_shown(column, results.mean(other, column))} ({other}), difference "
            f"{_shown(column, mean)} with a standard error of {_shown(column, error)}, n = {count}"
        )
        return _beyond(mean - by, error, reason)

    return judge


def loses_more(one: tuple[str, str], other: tuple[str, str], column: str = "knn") -> Judge:
    """From its first variant to its second, `one` loses more than `other`, judged as `higher`."""

    def judge(results: Results) -> Outcome:
        lost, kept = (results.paired(*each, column) for each in (one, other))
        seeds = [seed for seed in lost if seed in kept]
        differences = [lost[seed] - kept[seed] for seed in seeds]
        count = len(seeds)
        if count < SEEDS_NEEDED:
            return _too_little(f"{one[1]} against {other[1]}", count)
        mean = statistics.fmean(differences)
        error = _standard_error(differences, column)
        reason = (
            f"{_shown(column, statistics.fmean(lost.values()))} lost from {one[0]} to {one[1]}, "
            f"{_shown(column, statistics.fmean(kept.values()))} from {other[0]} to {other[1]}, "
            f"difference {_shown(column, mean)} with a standard error of "
            f"{_shown(column, error)}, n = {count}"
        )
        return _beyond(mean, error, reason)

    return judge


def _standard_error(differences: Sequence[float], column: str) -> float:
    """Of the mean over seeds, from their spread; never below what the test images leave open."""
    spread = statistics.stdev(differences)
    least = LEAST_SPREAD if column in ACCURACIES else 0.0
    return max(spread, least) / math.sqrt(len(differences))


def _beyond(difference: float, error: float, reason: str) -> Outcome:
    if abs(difference) > 2 * error:
        return Outcome(difference > 0, reason)
    return Outcome(None, f"within the spread: {reason}")


def close(one: str, other: str, column: str = "knn", *, within: float) -> Judge:
    """`one` and `other` end at most `within` apart, beyond twice the standard error."""

    def judge(results: Results) -> Outcome:
        differences = list(results.paired(one, other, column).values())
        count = len(differences)
        if count < SEEDS_NEEDED:
            return _too_little(f"{one} against {other}", count)
        distance = abs(statistics.fmean(differences))
        error = _standard_error(differences, column)
        reason = (
            f"{one} and {other} are {_shown(column, distance)} apart, with a standard error of "
            f"{_shown(column, error)}, n = {count}"
        )
        if distance + 2 * error <= within:
            return Outcome(True, reason)
        return Outcome(False if distance - 2 * error > within else None, reason)

    return judge


def every(*judges: Judge) -> Judge:
    """All of these hold; one that does not decides."""

    def judge(results: Results) -> Outcome:
        outcomes = [each(results) for each in judges]
        for verdict in (False, None):
            reasons = [each.reason for each in outcomes if each.holds is verdict]
            if reasons:
                return Outcome(verdict, "; ".join(reasons))
        return Outcome(True, "; ".join(each.reason for each in outcomes))

    return judge


def _too_little(what: str, count: int) -> Outcome:
    return Outcome(None, f"too little was run: {count} of {SEEDS_NEEDED} seeds of {what}")


def _shown(column: str, value: float) -> str:
    return f"{100 * value:.1f} %" if column in _SHARES else f"{value:.3g}"
