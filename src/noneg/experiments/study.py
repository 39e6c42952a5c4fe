"""What a study is: a grid of configurations, claims about the results, and a figure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from matplotlib.figure import Figure
from torch import Tensor

from noneg.encoder import Encoder
from noneg.experiments.results import Results
from noneg.methods.base import Embeddings, Method

BatchMeasure = Callable[[Method, Embeddings], Mapping[str, float | Tensor]]
"""Named numbers of one batch, taken while a run trains."""

EncoderMeasure = Callable[[Encoder, bool], Mapping[str, float]]
"""Named numbers of a trained encoder; True asks for a quick run's smaller effort."""


@final
@dataclass(frozen=True)
class Variant:
    """One configuration; it is trained once per seed.

    Attributes:
        name: shown in tables and figures.
        settings: of `noneg.train`; they take precedence over the settings that all runs share.
        quick: whether a quick run includes it.
        measure_memory: whether to measure the peak memory of training, in a separate process.
    """

    name: str
    settings: Mapping[str, Any]
    quick: bool = True
    measure_memory: bool = False


@final
@dataclass(frozen=True)
class Outcome:
    """Whether a claim holds (None: the results do not decide it), and why."""

    holds: bool | None
    reason: str

    @property
    def word(self) -> str:
        """The outcome in words."""
        return {True: "held", False: "did not hold", None: "undecided"}[self.holds]


Criterion = Callable[[Results], Outcome]
"""Decides a claim; `noneg.experiments.judge` has the common ones."""


@final
@dataclass(frozen=True)
class Claim:
    """A sentence that the results support or contradict.

    Attributes:
        sentence: what is claimed.
        criterion: decides it.
        likely: the likely reason if it does not hold.
    """

    sentence: str
    criterion: Criterion
    likely: str = ""


COLUMNS = ("knn", "linear", "std_z", "effective_rank_z", "effective_rank_h", "loss")
"""What the table of most studies shows."""


@final
@dataclass(frozen=True)
class Study:
    """A study, as its file defines it.

    Attributes:
        name: on the command line, with hyphens.
        chapter: its place in the story.
        title: one line, for `noneg study list`.
        question: what is asked, in a few sentences that do not give the answer away.
        variants: the grid.
        claims: what is judged.
        papers: what the papers report, each with its source.
        draw: fills the figure.
        settings: of all variants.
        batch_measure: computed on every logged batch during training.
        encoder_measure: computed once on the trained encoder.
        columns: the numbers in the page's table.
    """

    name: str
    chapter: int
    title: str
    question: str
    variants: tuple[Variant, ...]
    claims: tuple[Claim, ...]
    papers: tuple[str, ...]
    draw: Callable[[Results, Figure], None]
    settings: Mapping[str, Any] = field(default_factory=dict)
    batch_measure: BatchMeasure | None = None
    encoder_measure: EncoderMeasure | None = None
    columns: tuple[str, ...] = COLUMNS

    @property
    def batch_measure_name(self) -> str:
        """Module and name of the function, or an empty string; part of a run's cache key."""
        measure = self.batch_measure
        return "" if measure is None else f"{measure.__module__}.{measure.__name__}"


@final
@dataclass(frozen=True)
class JudgedStudy:
    """A study that was run, with its results and the outcome of each claim.

    Attributes:
        study: what was run.
        data: the images, as the page describes them.
        command_line: that ran it.
        shared: the settings that all runs share.
        quick: whether this was a quick run, which decides nothing.
        planned: number of runs in the whole grid.
        results: the finished runs.
        outcomes: one for each claim.
        directory: of the CSV, the figure and the page.
    """

    study: Study
    data: str
    command_line: str
    shared: Mapping[str, Any]
    quick: bool
    planned: int
    results: Results
    outcomes: tuple[Outcome, ...]
    directory: Path
