"""Made-up results, so that the right outcome is known."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from noneg.experiments.results import FinishedRun, Results
from noneg.experiments.study import Study
from noneg.records.directory import RunDirectory


def result(
    variant: str, seed: int = 0, diverged: str | None = None, **numbers: float
) -> FinishedRun:
    """A healthy run, unless the numbers say otherwise."""
    healthy = {"std_h": 0.9, "std_z": 0.9, "effective_rank_h": 20.0, "effective_rank_z": 20.0}
    return FinishedRun(variant, seed, {}, {**healthy, **numbers}, diverged)


def seeds(variant: str, values: Sequence[float], column: str = "knn") -> list[FinishedRun]:
    """One run for each value."""
    return [result(variant, seed, **{column: value}) for seed, value in enumerate(values)]


def results(*groups: Sequence[FinishedRun]) -> Results:
    """All of them together."""
    return Results(tuple(row for group in groups for row in group))


def write_curves(directory: Path, columns: Mapping[str, Sequence[float | str]]) -> RunDirectory:
    """The same rows as metrics and as a study's batch measure, at steps 1, 10, 20 ..."""
    directory.mkdir(parents=True, exist_ok=True)
    run = RunDirectory(directory)
    for table in (run.metrics, run.study_meter):
        with table.path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["step", *columns])
            for number, row in enumerate(zip(*columns.values(), strict=True)):
                writer.writerow([10 * number or 1, *row])
    return run


def whole_study(study: Study, directory: Path, seeds: int = 2) -> Results:
    """Every variant, with every number that any study shows, and curves."""
    names = {*study.columns, "knn", "linear", "std_z", "effective_rank_z", "memory_mb"}
    names |= {"std_h", "effective_rank_h", "norm_h", "mean_cosine_h", "norm_z", "mean_cosine_z"}
    names |= {"aligned", "proportional", "sample", "dimension", "residual", "redundancy", "loss"}
    names |= {"commutator", "reads_colors", "reads_places", "spread", "sigreg_pull", "hinge_pull"}
    columns: dict[str, Sequence[float]] = dict.fromkeys(sorted(names), (0.9, 0.7, 0.5))
    run = write_curves(directory, columns)
    runs: list[FinishedRun] = []
    for seed in range(seeds):
        for number, variant in enumerate(study.variants):
            numbers: dict[str, Any] = dict.fromkeys(sorted(names), (number + 1) / 40 + seed / 1000)
            baselines = {
                f"{b}_{p}": 0.1 for b in ("untrained", "pixels") for p in ("knn", "linear")
            }
            settings = dict(variant.settings)
            runs.append(FinishedRun(variant.name, seed, settings, numbers | baselines, None, run))
    return Results(tuple(runs))
