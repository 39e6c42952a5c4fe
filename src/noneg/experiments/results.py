"""The finished runs of a study, with their numbers and curves."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from noneg.records.directory import RunDirectory
from noneg.records.table import StepTable

ACCURACIES = ("knn", "linear")
"""The numbers that are accuracies in [0, 1]; tables and figures show them in percent."""

Curve = tuple[list[int], list[float]]
"""Steps, and one value for each."""


@final
@dataclass(frozen=True)
class FinishedRun:
    """One finished run.

    Attributes:
        variant: its name in the study.
        seed: of the run.
        settings: those in which the variant differs from the study's shared settings.
        numbers: those of the last step and of the probes; accuracies in [0, 1].
        diverged: why the run stopped, if its loss or weights became infinite or NaN.
        directory: of the run; None for results without curves.
    """

    variant: str
    seed: int
    settings: Mapping[str, Any]
    numbers: Mapping[str, float]
    diverged: str | None = None
    directory: RunDirectory | None = None

    def training_curve(self, column: str) -> Curve:
        """One column of the run's metrics; empty if there is none."""
        return _curve(self.directory and self.directory.metrics, column)

    def measured_curve(self, column: str) -> Curve:
        """One number of the study's batch measure; empty if there is none."""
        return _curve(self.directory and self.directory.study_meter, column)


def _curve(table: StepTable | None, column: str) -> Curve:
    rows = [row for row in table.read() if row.get(column)] if table else []
    return [int(row["step"]) for row in rows], [float(row[column]) for row in rows]


@final
@dataclass(frozen=True)
class Results:
    """All finished runs of a study."""

    runs: Sequence[FinishedRun]

    @property
    def variants(self) -> list[str]:
        """Names of the variants that have a finished run, in order."""
        return list(dict.fromkeys(run.variant for run in self.runs))

    def of(self, variant: str) -> list[FinishedRun]:
        """The runs of one variant, by seed."""
        return sorted(
            (run for run in self.runs if run.variant == variant), key=lambda run: run.seed
        )

    def values(self, variant: str, column: str) -> list[float]:
        """The finite values of one number over a variant's runs, by seed."""
        return list(self._by_seed(variant, column).values())

    def mean(self, variant: str, column: str) -> float:
        """Mean over the seeds; NaN if there are none."""
        values = self.values(variant, column)
        return statistics.fmean(values) if values else float("nan")

    def baseline(self, column: str) -> dict[str, list[float]]:
        """A number of the untrained network or of raw pixels: one value per run, by backbone.

        The study's own backbone has the empty name; variants with another backbone name it.
        """
        by_backbone: dict[str, list[float]] = {}
        for run in self.runs:
            if column in run.numbers:
                backbone = str(run.settings.get("backbone", ""))
                by_backbone.setdefault(backbone, []).append(run.numbers[column])
        return by_backbone

    def paired(self, one: str, other: str, column: str) -> dict[int, float]:
        """`one` minus `other`, for each seed with which neither diverged."""
        first, second = self._by_seed(one, column), self._by_seed(other, column)
        return {seed: first[seed] - second[seed] for seed in first if seed in second}

    def _by_seed(self, variant: str, column: str) -> dict[int, float]:
        # The last numbers of a diverged run do not describe a trained network.
        runs = (run for run in self.of(variant) if run.diverged is None)
        numbers = ((run.seed, run.numbers.get(column, math.nan)) for run in runs)
        return {seed: number for seed, number in numbers if math.isfinite(number)}
