"""How claims are decided: with at least two seeds, and only by differences beyond their spread."""

import math
import statistics
from collections.abc import Sequence

from noneg.experiments.results import ACCURACIES, FinishedRun, Results
from noneg.experiments.study import Criterion, Outcome

COLLAPSED_STD = 0.1
"""Below this value all embeddings point in nearly the same direction (normalized std)."""
COLLAPSED_RANK = 2.0
"""At or below this effective rank the embeddings lie close to a line."""
COLLAPSED_DISTANCE = 0.02
"""Below this share of the initial squared distance between images, the embeddings have met."""
SEEDS_NEEDED = 2
LEAST_SPREAD = 0.01
"""The least standard deviation of a difference between accuracies. Two seeds can agree by chance,
and 2,000 test images leave a standard error of about one point (0.9 for an accuracy of 20 %)."""

_SHARES = (*ACCURACIES, "distance")


def distance_left(run: FinishedRun) -> float:
    """Mean squared distance between images at the end, as a share of the start: h or z, the lower.

    2 |h|^2 (1 - cos): a mean squared error also falls if all vectors shrink, which no meter of
    directions sees.
    """
    left = [1.0]
    for embedding in ("h", "z"):
        _, norms = run.training_curve(f"norm_{embedding}")
        _, cosines = run.training_curve(f"mean_cosine_{embedding}")
        distance = [norm**2 * (1 - cosine) for norm, cosine in zip(norms, cosines, strict=True)]
        if distance:
            left.append(distance[-1] / max(distance[0], 1e-12))
    return min(left)


def is_collapsed(run: FinishedRun) -> bool:
    """Whether the final h or z have one direction, lie on a line, or are one point."""
    numbers = run.numbers
    if distance_left(run) < COLLAPSED_DISTANCE:
        return True
    stds = [numbers[name] for name in ("std_h", "std_z") if name in numbers]
    ranks = [numbers[name] for name in ("effective_rank_h", "effective_rank_z") if name in numbers]
    return any(std < COLLAPSED_STD for std in stds) or any(r <= COLLAPSED_RANK for r in ranks)


def collapses(*variants: str) -> Criterion:
    """Each of these variants is collapsed at the end, with every seed."""
    return lambda results: _end_as(results, variants, collapsed=True)


def survives(*variants: str) -> Criterion:
    """None of these variants is collapsed at the end, with any seed."""
    return lambda results: _end_as(results, variants, collapsed=False)


def _end_as(results: Results, variants: Sequence[str], *, collapsed: bool) -> Outcome:
    for variant in variants:
        if len(results.of(variant)) < SEEDS_NEEDED:
            return not_enough_runs(variant, len(results.of(variant)))
    parts, holds = [], True
    for variant in variants:
        runs = [run for run in results.of(variant) if run.diverged is None]
        lost = len(results.of(variant)) - len(runs)
        count = sum(is_collapsed(run) for run in runs)
        holds = holds and lost == 0 and count == (len(runs) if collapsed else 0)
        std, rank = results.mean(variant, "std_z"), results.mean(variant, "effective_rank_z")
        left = statistics.fmean(map(distance_left, runs)) if runs else math.nan
        parts.append(
            f"{variant}: {count} of {len(runs)} collapsed (std of z {std:.2f}, rank {rank:.1f}, "
            f"{_shown('distance', left)} of the distance left)"
            + (f", {lost} diverged" if lost else "")
        )
    return Outcome(holds, "; ".join(parts))


def higher(one: str, other: str, column: str = "knn", *, by: float = 0.0) -> Criterion:
    """`one` exceeds `other` by more than `by`, paired by seed, beyond twice the standard error."""

    def criterion(results: Results) -> Outcome:
        differences = list(results.paired(one, other, column).values())
        if len(differences) < SEEDS_NEEDED:
            return not_enough_runs(f"{one} against {other}", len(differences))
        mean = statistics.fmean(differences)
        reason = (
            f"{_shown(column, results.mean(one, column))} ({one}) against "
            f"{_shown(column, results.mean(other, column))} ({other}), difference "
            f"{_shown(column, mean)} {_with_error(column, differences)}"
        )
        return _beyond(mean - by, _standard_error(column, differences), reason)

    return criterion


def loses_more(one: tuple[str, str], other: tuple[str, str], column: str = "knn") -> Criterion:
    """`one` loses more from its first to its second variant than `other`; as for `higher`."""

    def criterion(results: Results) -> Outcome:
        lost, lost_by_other = (results.paired(*each, column) for each in (one, other))
        differences = [lost[seed] - lost_by_other[seed] for seed in lost if seed in lost_by_other]
        if len(differences) < SEEDS_NEEDED:
            return not_enough_runs(f"{one[1]} against {other[1]}", len(differences))
        mean = statistics.fmean(differences)
        reason = (
            f"{_shown(column, statistics.fmean(lost.values()))} lost from {one[0]} to {one[1]}, "
            f"{_shown(column, statistics.fmean(lost_by_other.values()))} from {other[0]} to "
            f"{other[1]}, difference {_shown(column, mean)} {_with_error(column, differences)}"
        )
        return _beyond(mean, _standard_error(column, differences), reason)

    return criterion


def close(one: str, other: str, column: str = "knn", *, within: float) -> Criterion:
    """`one` and `other` differ by at most `within`, beyond twice the standard error."""

    def criterion(results: Results) -> Outcome:
        differences = list(results.paired(one, other, column).values())
        if len(differences) < SEEDS_NEEDED:
            return not_enough_runs(f"{one} against {other}", len(differences))
        distance = abs(statistics.fmean(differences))
        error = _standard_error(column, differences)
        reason = (
            f"{one} and {other} differ by {_shown(column, distance)}, "
            f"{_with_error(column, differences)}"
        )
        if distance + 2 * error <= within:
            return Outcome(True, reason)
        return Outcome(False if distance - 2 * error > within else None, reason)

    return criterion


def every(*criteria: Criterion) -> Criterion:
    """All of these hold. If one does not, or is undecided, only its reason is given."""

    def criterion(results: Results) -> Outcome:
        outcomes = [each(results) for each in criteria]
        for verdict in (False, None):
            reasons = [each.reason for each in outcomes if each.holds is verdict]
            if reasons:
                return Outcome(verdict, "; ".join(reasons))
        return Outcome(True, "; ".join(each.reason for each in outcomes))

    return criterion


def not_enough_runs(of: str, count: int) -> Outcome:
    """Undecided, because only `count` seeds were run."""
    return Outcome(None, f"not enough runs: {count} of {SEEDS_NEEDED} seeds of {of}")


def _standard_error(column: str, differences: Sequence[float]) -> float:
    """Of the mean over seeds; never below what the test images leave open."""
    least = LEAST_SPREAD if column in ACCURACIES else 0.0
    return max(statistics.stdev(differences), least) / math.sqrt(len(differences))


def _with_error(column: str, differences: Sequence[float]) -> str:
    error = _shown(column, _standard_error(column, differences))
    return f"with a standard error of {error}, n = {len(differences)}"


def _beyond(difference: float, error: float, reason: str) -> Outcome:
    if abs(difference) > 2 * error:
        return Outcome(difference > 0, reason)
    return Outcome(None, f"within two standard errors: {reason}")


def _shown(column: str, value: float) -> str:
    return f"{100 * value:.1f} %" if column in _SHARES else f"{value:.3g}"
