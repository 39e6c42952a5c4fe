"""What the runs of a study left: one row a run, with its curves beside."""

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

ACCURACIES = ("knn", "linear")
"""The numbers that are shares of the test images; people read them in per cent."""


@final
@dataclass(frozen=True)
class Result:
    """One finished run.

    Attributes:
        variant: its name in the study.
        seed: of the run.
        settings: that differ from the study's scale.
        numbers: of the last step and of the probes; accuracies in [0, 1].
        diverged: why the run stopped, where its loss or weights were no longer finite.
        directory: of the run, with its metrics.csv.
    """

    variant: str
    seed: int
    settings: Mapping[str, Any]
    numbers: Mapping[str, float]
    diverged: str | None = None
    directory: Path | None = None

    def curve(self, column: str, file: str = "metrics.csv") -> tuple[list[int], list[float]]:
        """Steps and values of one column of the run's metrics.csv or meter.csv."""
        if self.directory is None or not (self.directory / file).exists():
            return [], []
        with (self.directory / file).open(newline="", encoding="utf-8") as table:
            rows = {int(row["step"]): row for row in csv.DictReader(table)}
        steps = sorted(step for step, row in rows.items() if row.get(column))
        return steps, [float(rows[step][column]) for step in steps]


@final
@dataclass(frozen=True)
class Results:
    """All finished runs of a study."""

    rows: Sequence[Result]

    @property
    def variants(self) -> list[str]:
        """Names of those with a result, in order."""
        return list(dict.fromkeys(row.variant for row in self.rows))

    def of(self, variant: str) -> list[Result]:
        """The runs of one variant, by seed."""
        rows = (row for row in self.rows if row.variant == variant)
        return sorted(rows, key=lambda row: row.seed)

    def values(self, variant: str, column: str) -> list[float]:
        """One finite number of each of a variant's runs that has it, by seed."""
        return list(self._by_seed(variant, column).values())

    def mean(self, variant: str, column: str) -> float:
        """Over the seeds; NaN where there are none."""
        values = self.values(variant, column)
        return statistics.fmean(values) if values else float("nan")

    def without_training(self, column: str) -> dict[str, list[float]]:
        """A number of the random start or of raw pixels, of each run that has it, by backbone.

        The name of the study's own backbone is empty; only those of other variants are named.
        """
        by_backbone: dict[str, list[float]] = {}
        for row in self.rows:
            if column in row.numbers:
                backbone = str(row.settings.get("backbone", ""))
                by_backbone.setdefault(backbone, []).append(row.numbers[column])
        return by_backbone

    def paired(self, one: str, other: str, column: str) -> dict[int, float]:
        """`one` less `other`, for each seed that both have and that neither diverged with."""
        first, second = self._by_seed(one, column), self._by_seed(other, column)
        return {seed: first[seed] - second[seed] for seed in first if seed in second}

    def _by_seed(self, variant: str, column: str) -> dict[int, float]:
        # The last numbers of a run that diverged are those of no trained network.
        rows = (row for row in self.of(variant) if row.diverged is None)
        numbers = ((row.seed, row.numbers.get(column, math.nan)) for row in rows)
        return {seed: number for seed, number in numbers if math.isfinite(number)}
