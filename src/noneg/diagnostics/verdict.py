"""The verdict on a run, from its meters: did it work, and if not, what happened?

A pure function of the rows that a run writes to `metrics.csv`: what a person would conclude from
the curves. The thresholds come from runs; docs/diagnostics.md says what they caught and missed.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Literal, final

State = Literal[
    "healthy",
    "complete collapse",
    "dimensional collapse",
    "projector only",
    "exploding scale",
    "not learning",
    "too early to say",
]

SAME_DIRECTION = 0.95
"""Mean cosine between different images above which their embeddings count as equal."""

DISTANCE_LEFT = 0.1
"""Share of the squared distance between images at the start below which they count as equal."""

FEW_DIRECTIONS = 1.8
"""Participation ratio below which the variance is in little more than one direction."""

OF_THE_START = 0.8
"""1 - mean cosine and the participation ratio must also have fallen to this share of their start.

Some networks start with low values, and a loss on normalized vectors leaves the scale free.
"""

EXPLODED = 100.0
"""Mean norm, in multiples of the first row's, above which the scale explodes."""

LEAST_GAIN = 1.05
"""Factor by which `separation` must have risen since the run began."""

LEAST_RETRIEVAL_GAIN = 1.35
"""Factor by which the odds of view retrieval must have risen over the untrained encoder's."""

FEWEST_FOUND = 20
"""Number of retrieved views below which the comparison of retrieval is chance."""

FIRST_ROWS, LAST_ROWS = 3, 3
"""Rows before the first verdict, and rows whose median is judged, because single rows are noisy."""

TIME_TO_LEARN = 2 / 3
"""Share of the run after which a lack of learning is reported."""

_NAMES = {"h": "representation", "z": "projection"}


@final
@dataclass(frozen=True)
class Verdict:
    """The verdict on a run.

    Attributes:
        state: in a word or two.
        sentence: what it means, with the numbers that it is based on.
        numbers: these numbers by name.
        needs_action: whether it is pointless to continue. With a projector that uses few
            directions, the encoder may still learn; and a run that does not learn may still begin
            to.
    """

    state: State
    sentence: str
    numbers: dict[str, float] = field(default_factory=dict)
    needs_action: bool = False

    @property
    def is_alarm(self) -> bool:
        """Whether to tell the user at once."""
        return self.state not in ("healthy", "too early to say")


def judge(
    rows: Sequence[Mapping[str, float]],
    total_steps: int,
    start: Sequence[Mapping[str, float]] = (),
    *,
    begins_trained: bool = False,
    own_failure: Callable[[Mapping[str, float]], tuple[State, str] | None] | None = None,
) -> Verdict:
    """The verdict on a run from its rows so far.

    It is based on the representation `h` and the projection `z`: whether different images still
    have different directions (mean cosine), how many directions (participation ratio), at which
    scale (mean norm), and whether the distance between images has grown relative to that between
    views of one image (`separation`).

    Args:
        rows: of metrics.csv, in order; the first one is of the untrained network. Each has `step`,
            and `mean_cosine`, `participation_ratio`, `norm` and `alignment` of both `_h` and `_z`.
        total_steps: of the whole run.
        start: the first two rows to compare with, if the run began with trained weights: those of
            the run that began with untrained ones.
        begins_trained: whether the run began with known weights, which tell images apart already:
            then it need not learn that.
        own_failure: the state and the sentence of a failure that only the run's method has, from
            the medians of the last rows; None if there is none.

    Returns:
        The verdict on the run as it stands at the last row.
    """
    if len(rows) < FIRST_ROWS + 1:
        return Verdict("too early to say", f"{len(rows)} rows of metrics are too few to compare.")
    start = start if len(start) > 1 else rows
    rows = [_with_directions(row) for row in (*start[:2], *rows[-LAST_ROWS:])]
    first, now = rows[0], _recent(rows)
    numbers: dict[str, float] = {}
    for embedding in ("h", "z"):
        for meter in ("mean_cosine", "participation_ratio"):
            numbers[f"{meter}_{embedding}"] = now[f"{meter}_{embedding}"]
        growth = now[f"norm_{embedding}"] / max(first[f"norm_{embedding}"], 1e-12)
        numbers[f"norm_growth_{embedding}"] = growth
        left = _distance(now, embedding) / max(_distance(first, embedding), 1e-12)
        numbers[f"distance_left_{embedding}"] = left
    # The first row is of a single batch, which has too few images for this comparison.
    numbers["separation_gain_h"] = separation(now) / max(separation(rows[1]), 1e-12)
    failure = None if own_failure is None else own_failure(now)
    for verdict in (_scale(numbers), _collapse(numbers, first), _few_directions(numbers, first)):
        if verdict is not None and failure is not None:
            return replace(verdict, sentence=f"{verdict.sentence} {failure[1]}")
        if verdict is not None:
            return verdict
    progress = now["step"] / total_steps
    if failure is not None and (failure[0] != "not learning" or progress >= TIME_TO_LEARN):
        return Verdict(*failure, numbers)
    return _learning(numbers, progress, begins_trained)


def judge_end(
    verdict: Verdict, trained: Mapping[str, float], untrained: Mapping[str, float], *, searches: int
) -> Verdict:
    """The final verdict on a run, from a comparison of the trained with the untrained encoder.

    A run that did not collapse has learned if the trained encoder finds an image's other view among
    all images more often than the untrained one (`view_retrieval`, compared by odds).

    Args:
        verdict: on the rows of the run.
        trained: meters of `h` of the trained encoder, from `measure`.
        untrained: those of the untrained encoder, on the same views of the same images.
        searches: number of views that were searched for. If both encoders found fewer than
            `FEWEST_FOUND`, the verdict stays as it is.
    """
    if verdict.state in ("complete collapse", "dimensional collapse", "exploding scale"):
        return verdict
    found, at_start = trained["view_retrieval"], untrained["view_retrieval"]
    if max(found, at_start) * searches < FEWEST_FOUND:
        return verdict
    gain = _odds(found) / max(_odds(at_start), 1e-12)
    numbers = verdict.numbers | {
        "view_retrieval_h": found,
        "view_retrieval_h_start": at_start,
        "retrieval_gain_h": gain,
    }
    told = (
        "The nearest neighbor of a view is another view of the same image in "
        f"{found:.1%} of cases ({at_start:.1%} before training)"
    )
    has_learned = gain >= LEAST_RETRIEVAL_GAIN
    if verdict.state == "projector only":
        worth = "the encoder has learned" if has_learned else "hardly more"
        return replace(
            verdict,
            sentence=f"{verdict.sentence} {told}: {worth}.",
            numbers=numbers,
            needs_action=not has_learned,
        )
    if not has_learned:
        return Verdict("not learning", f"{told}: hardly more.", numbers)
    directions = verdict.numbers.get("participation_ratio_h")
    along = "" if directions is None else f", and images differ along {directions:.0f} directions"
    return Verdict("healthy", f"{told}{along}.", numbers)


def _distance(row: Mapping[str, float], embedding: str) -> float:
    return 2 * row[f"norm_{embedding}"] ** 2 * (1 - row[f"mean_cosine_{embedding}"])


def _odds(share: float) -> float:
    return share / max(1 - share, 1e-12)


def separation(row: Mapping[str, float], embedding: str = "h") -> float:
    """Squared distance between different images, in multiples of that between views of one image.

    2 (1 - mean cosine) / alignment, of normalized embeddings: 1 if views of an image are as far
    apart as different images. At least 0; infinite if views do not differ.
    """
    between = 2 * (1 - row[f"mean_cosine_{embedding}"])
    within = row[f"alignment_{embedding}"]
    return between / within if within > 0 else math.inf


def _with_directions(row: Mapping[str, float]) -> dict[str, float]:
    """Zero vectors have no cosine; they are equal, so it counts as 1."""
    return {
        name: 1.0 if name.startswith("mean_cosine") and math.isnan(value) else value
        for name, value in row.items()
    }


def _recent(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    last = rows[-LAST_ROWS:]
    middle = {
        name: median(row[name] for row in last) for name in last[-1] if all(name in r for r in last)
    }
    return middle | {"step": last[-1]["step"]}


def _scale(numbers: dict[str, float]) -> Verdict | None:
    for embedding, name in _NAMES.items():
        growth = numbers[f"norm_growth_{embedding}"]
        if not growth < EXPLODED:
            sentence = (
                f"The {name} is {growth:.3g} times as long as at the start: nothing limits it."
            )
            return Verdict("exploding scale", sentence, numbers, needs_action=True)
    return None


def _collapse(numbers: dict[str, float], start: Mapping[str, float]) -> Verdict | None:
    is_collapsed = {}
    for embedding in _NAMES:
        cosine = numbers[f"mean_cosine_{embedding}"]
        has_contracted = 1 - cosine < OF_THE_START * (1 - start[f"mean_cosine_{embedding}"])
        is_near = numbers[f"distance_left_{embedding}"] < DISTANCE_LEFT
        is_collapsed[embedding] = has_contracted and (is_near or cosine > SAME_DIRECTION)
    told = {
        embedding: "squared distance "
        f"{numbers[f'distance_left_{embedding}']:.3g} of that at the start, "
        f"mean cosine {numbers[f'mean_cosine_{embedding}']:.3f}"
        for embedding in _NAMES
    }
    if is_collapsed["h"]:
        sentence = f"The encoder gives all images nearly the same vector ({told['h']})."
        return Verdict("complete collapse", sentence, numbers, needs_action=True)
    if is_collapsed["z"]:
        sentence = (
            f"The projector gives all images nearly the same vector ({told['z']}), so the loss "
            "teaches nothing more; the encoder itself still tells them apart."
        )
        return Verdict("projector only", sentence, numbers, needs_action=True)
    return None


def _few_directions(numbers: dict[str, float], start: Mapping[str, float]) -> Verdict | None:
    for embedding, name in _NAMES.items():
        directions = numbers[f"participation_ratio_{embedding}"]
        at_start = start[f"participation_ratio_{embedding}"]
        if directions < FEW_DIRECTIONS and directions < OF_THE_START * at_start:
            sentence = (
                f"The {name} varies along only {directions:.1f} directions (participation ratio; "
                f"{at_start:.1f} at the start)."
            )
            if embedding == "h":
                return Verdict("dimensional collapse", sentence, numbers, needs_action=True)
            return Verdict("projector only", sentence, numbers)
    return None


def _learning(numbers: dict[str, float], progress: float, begins_trained: bool) -> Verdict:
    gain = numbers["separation_gain_h"]
    told = (
        "Relative to views of the same image, different images are "
        f"{gain:.2f} times as far apart as when training began"
    )
    if gain >= LEAST_GAIN or begins_trained:
        return Verdict(
            "healthy",
            f"{told}, along {numbers['participation_ratio_h']:.0f} directions.",
            numbers,
        )
    if progress < TIME_TO_LEARN:
        return Verdict("too early to say", f"{told}, after {progress:.0%} of the run.", numbers)
    return Verdict("not learning", f"{told}: hardly more.", numbers)
