"""From the meters of a run to words: did it work, and if not, what happened?

A pure function of the rows that a run writes (`metrics.csv`): what a person would read off the
curves, with thresholds that come from runs (docs/diagnostics.md has them, with what they caught and
what they missed).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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

_ALARMS = ("complete collapse", "dimensional collapse", "exploding scale", "not learning")
_ACTIONS = ("complete collapse", "dimensional collapse", "exploding scale")


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
    return Verdict("too early to say", "")
