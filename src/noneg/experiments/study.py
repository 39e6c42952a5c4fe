"""What a study is: a grid of configurations, claims that judge the results, and a figure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from matplotlib.figure import Figure
from torch import Tensor

from noneg.encoder import Encoder
from noneg.experiments.results import Results
from noneg.methods.base import Embeddings, Method

Meter = Callable[[Method, Embeddings], Mapping[str, float | Tensor]]
Measure = Callable[[Encoder, bool], Mapping[str, float]]


@final
@dataclass(frozen=True)
class Variant:
    """One configuration; every seed trains it once.

    Attributes:
        name: what tables and figures call it.
        settings: of `noneg.train`, over the study's and the scale's.
        quick: part of the quick look too.
        memory: also measure the peak memory of training, in a process of its own.
    """

    name: str
    settings: Mapping[str, Any]
    quick: bool = True
    memory: bool = False


@final
@dataclass(frozen=True)
class Outcome:
    """Whether a claim holds: True, False, or None where the results cannot tell, and why."""

    holds: bool | None
    reason: str

    @property
    def word(self) -> str:
        """The verdict in words."""
        return {True: "held", False: "did not hold", None: "undecided"}[self.holds]


@final
@dataclass(frozen=True)
class Claim:
    """A sentence that is true or false of the results.

    Attributes:
        sentence: what is claimed.
        judge: decides it.
        likely: where it does not hold, the likely reason.
    """

    sentence: str
    judge: Callable[[Results], Outcome]
    likely: str = ""


@final
@dataclass(frozen=True)
class Study:
    """A study, as its file holds it.

    Attributes:
        name: of the command, with hyphens.
        title: a line for `noneg study list`.
        question: what is asked, in a few sentences that say nothing of the answer.
        variants: the grid.
        claims: what is judged.
        papers: what the papers report, each with its source.
        draw: fills the figure.
        settings: of all variants.
        meter: numbers that are taken of every logged batch while a run trains.
        measure: numbers that are taken of the trained encoder; the flag asks for a quick look.
        columns: of the results that the page's table shows.
        meter_name: tells runs with one meter from those with another.
    """

    name: str
    title: str
    question: str
    variants: tuple[Variant, ...]
    claims: tuple[Claim, ...]
    papers: tuple[str, ...]
    draw: Callable[[Results, Figure], None]
    settings: Mapping[str, Any] = field(default_factory=dict)
    meter: Meter | None = None
    measure: Measure | None = None
    columns: tuple[str, ...] = (
        "knn",
        "linear",
        "std_z",
        "effective_rank_z",
        "effective_rank_h",
        "loss",
    )

    @property
    def meter_name(self) -> str:
        """Of the function, or nothing."""
        return "" if self.meter is None else f"{self.meter.__module__}.{self.meter.__name__}"


@final
@dataclass(frozen=True)
class Report:
    """A study that was run: its results, and the outcome of each claim.

    Attributes:
        study: what was run.
        data: on what.
        command: that ran it.
        scale: the settings that all runs share.
        quick: whether this was a quick look, which decides nothing.
        planned: runs of the whole grid.
        results: of those that are done.
        outcomes: one for each claim.
        baselines: accuracy of the random starts and of raw pixels, [seeds] each; empty without
            labels.
        directory: of the CSV, the figure and the page.
    """

    study: Study
    data: str
    command: str
    scale: Mapping[str, Any]
    quick: bool
    planned: int
    results: Results
    outcomes: tuple[Outcome, ...]
    directory: Path
