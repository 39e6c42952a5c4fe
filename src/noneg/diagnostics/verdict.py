"""From the meters of a run to words: did it work, and if not, what happened?

A pure function of the rows that a run writes (`metrics.csv`): what a person would read off the
curves, with thresholds that come from runs (docs/diagnostics.md has them, with what they caught and
what they missed).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
"""Mean cosine between different images above which they count as alike."""

FEW_DIRECTIONS = 1.8
"""Participation ratio below which the variance lies in hardly more than one direction."""

OF_THE_START = 0.7
"""Both must also have fallen to this share of the start's, which some networks begin low with."""

EXPLODED = 100.0
"""Mean norm, in multiples of the first row's, above which the scale has no hold."""

LEAST_GAIN = 1.05
"""How much better views must be told from other images than early in the run, as a factor."""

LEAST_RETRIEVAL_GAIN = 1.35
"""How much higher the odds of finding an image's other view must be than at the start."""

FIRST_ROWS, LAST_ROWS = 3, 3
"""Rows before anything is said, and those whose median is looked at, as single rows are noisy."""

TIME_TO_LEARN = 0.3
"""Share of the run after which not having begun to learn is worth a word."""

_ALARMS = (
    "complete collapse",
    "dimensional collapse",
    "projector only",
    "exploding scale",
    "not learning",
)
_ACTIONS = ("complete collapse", "dimensional collapse", "projector only", "exploding scale")


@final
@dataclass(frozen=True)
class Verdict:
    """What the meters say of a run.

    Attributes:
        state: in a word or two.
        sentence: what it means, with the numbers that say so.
        numbers: these numbers by name.
    """

    state: State
    sentence: str
    numbers: dict[str, float] = field(default_factory=dict)

    @property
    def is_alarm(self) -> bool:
        """Whether the user wants to know at once."""
        return self.state in _ALARMS

    @property
    def needs_action(self) -> bool:
        """Whether going on is pointless: a run that does not learn yet may still begin to."""
        return self.state in _ACTIONS


def judge(rows: Sequence[Mapping[str, float]], total_steps: int) -> Verdict:
    """What the rows so far say of a run.

    Looks at the representation `h` and the projection `z`: whether different images still point in
    different directions (mean cosine), in how many (participation ratio), at which scale (mean
    norm), and whether views of an image are told from other images better than at the start.

    Args:
        rows: of metrics.csv, in order, the first of them of the network at its start; each with
            `step`, and `mean_cosine`, `participation_ratio`, `norm` and `alignment` of both `_h`
            and `_z`.
        total_steps: of the whole run.

    Returns:
        The verdict on the run as it stands at the last row.
    """
    if len(rows) < FIRST_ROWS + 1:
        return Verdict(
            "too early to say", f"After {len(rows)} rows of metrics there is nothing to compare."
        )
    start, now = rows[0], _recent(rows)
    numbers: dict[str, float] = {}
    for embedding in ("h", "z"):
        for meter in ("mean_cosine", "participation_ratio"):
            numbers[f"{meter}_{embedding}"] = now[f"{meter}_{embedding}"]
        growth = now[f"norm_{embedding}"] / max(start[f"norm_{embedding}"], 1e-12)
        numbers[f"norm_growth_{embedding}"] = growth
    # The first row is of a single batch, too few images to compare these by.
    numbers["separation_gain_h"] = separation(now) / separation(rows[1])
    for verdict in (_scale(numbers), _collapse(numbers, start), _few_directions(numbers, start)):
        if verdict is not None:
            return verdict
    return _learning(numbers, now["step"] / total_steps)


def judge_end(
    verdict: Verdict, trained: Mapping[str, float], random: Mapping[str, float]
) -> Verdict:
    """The last word on a run, once its encoder can be measured beside its start.

    A run that did not collapse has learnt if another view of an image is found among other images
    more often than by the encoder at initialisation (`view_retrieval`, compared by odds).

    Args:
        verdict: on the rows of the run.
        trained: meters of `h` of the trained encoder, as `measure` gives them.
        random: of the encoder at initialisation, on the same views of the same images.
    """
    if verdict.needs_action:
        return verdict
    found, at_start = trained["view_retrieval"], random["view_retrieval"]
    gain = _odds(found) / max(_odds(at_start), 1e-12)
    numbers = verdict.numbers | {
        "view_retrieval_h": found,
        "view_retrieval_h_start": at_start,
        "retrieval_gain_h": gain,
    }
    told = (
        f"another view of an image is the nearest of all images' in {found:.1%} of cases "
        f"({at_start:.1%} before training)"
    )
    if not gain >= LEAST_RETRIEVAL_GAIN:
        return Verdict("not learning", f"{_capital(told)}: hardly more.", numbers)
    sentence = verdict.sentence if verdict.state == "healthy" else "It did not collapse."
    return Verdict("healthy", f"{sentence.rstrip('.')}; {told}.", numbers)


def _odds(share: float) -> float:
    return share / max(1 - share, 1e-12)


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def separation(row: Mapping[str, float], embedding: str = "h") -> float:
    """Squared distance between different images, in multiples of that between views of one.

    2 (1 - mean cosine) / alignment, of normalised embeddings: 1 where views of an image are as far
    apart as different images. At least 0; infinite where views do not differ.
    """
    between = 2 * (1 - row[f"mean_cosine_{embedding}"])
    within = row[f"alignment_{embedding}"]
    return between / within if within > 0 else math.inf


def _recent(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    last = rows[-LAST_ROWS:]
    middle = {
        name: median(row[name] for row in last) for name in last[-1] if all(name in r for r in last)
    }
    return middle | {"step": last[-1]["step"]}


def _scale(numbers: dict[str, float]) -> Verdict | None:
    for embedding, name in (("h", "The representation"), ("z", "The projection")):
        growth = numbers[f"norm_growth_{embedding}"]
        if not growth < EXPLODED:
            return Verdict(
                "exploding scale",
                f"{name} is {growth:.3g} times as long as at the start and nothing holds it.",
                numbers,
            )
    return None


def _collapse(numbers: dict[str, float], start: Mapping[str, float]) -> Verdict | None:
    cosine = {embedding: numbers[f"mean_cosine_{embedding}"] for embedding in ("h", "z")}
    alike = {
        embedding: now > SAME_DIRECTION
        and 1 - now < OF_THE_START * (1 - start[f"mean_cosine_{embedding}"])
        for embedding, now in cosine.items()
    }
    if alike["h"]:
        return Verdict(
            "complete collapse",
            f"All images look alike to the encoder: the mean cosine between different ones is "
            f"{cosine['h']:.3f} (1 is the same direction).",
            numbers,
        )
    if alike["z"]:
        return Verdict(
            "projector only",
            f"The projector gives all images nearly the same vector (mean cosine "
            f"{cosine['z']:.3f}), so the loss has nothing left to teach; the encoder itself still "
            f"tells them apart ({cosine['h']:.3f}).",
            numbers,
        )
    return None


def _few_directions(numbers: dict[str, float], start: Mapping[str, float]) -> Verdict | None:
    for embedding, name in (("h", "The representation"), ("z", "The projection")):
        directions = numbers[f"participation_ratio_{embedding}"]
        at_start = start[f"participation_ratio_{embedding}"]
        if directions < FEW_DIRECTIONS and directions < OF_THE_START * at_start:
            return Verdict(
                "dimensional collapse",
                f"{name} varies along {directions:.1f} directions (participation ratio) and "
                "not along its other ones.",
                numbers,
            )
    return None


def _learning(numbers: dict[str, float], progress: float) -> Verdict:
    gain = numbers["separation_gain_h"]
    told = (
        f"Beside views of the same image, different images are {gain:.2f} times as far apart as "
        "when the run began"
    )
    if gain >= LEAST_GAIN:
        return Verdict(
            "healthy",
            f"{told}, along {numbers['participation_ratio_h']:.0f} directions.",
            numbers,
        )
    if progress < TIME_TO_LEARN:
        return Verdict("too early to say", f"{told}, after {progress:.0%} of the run.", numbers)
    return Verdict("not learning", f"{told}: no better than that.", numbers)
