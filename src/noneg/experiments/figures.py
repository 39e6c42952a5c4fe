"""The two figures that most studies draw: bars over variants, and curves over steps."""

import math
import statistics
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from noneg.experiments.results import ACCURACIES, FinishedRun, Results

LABELS = {
    "knn": "kNN accuracy, %",
    "linear": "linear accuracy, %",
    "std_z": "std of z (0: collapsed)",
    "std_h": "std of h (0: collapsed)",
    "effective_rank_z": "effective rank of z",
    "effective_rank_h": "effective rank of h",
    "loss": "loss",
    "memory_mb": "peak memory, MB",
}


def bars(axis: Axes, results: Results, column: str, variants: Sequence[str] | None = None) -> None:
    """A bar for each variant's mean, a dot for each seed, a dotted line for the untrained."""
    names = [each for each in variants or results.variants if results.values(each, column)]
    factor = 100 if column in ACCURACIES else 1
    for position, name in enumerate(names):
        values = [factor * value for value in results.values(name, column)]
        axis.barh(position, statistics.fmean(values), color="#9ecae1")
        axis.plot(values, [position] * len(values), "k.", markersize=3)
    untrained = [factor * each for each in results.baseline(f"untrained_{column}").get("", [])]
    if untrained:
        axis.axvline(statistics.fmean(untrained), color="gray", linestyle=":", linewidth=1)
    axis.set_yticks(range(len(names)), names, fontsize=6 if len(names) > 10 else 7)
    axis.invert_yaxis()
    axis.set_xlabel(LABELS.get(column, column.replace("_", " ")), fontsize=8)
    axis.tick_params(axis="x", labelsize=7)


def bar_panels(*columns: str) -> Callable[[Results, Figure], None]:
    """Draw one panel of bars per column; the first one names the variants."""

    def draw(results: Results, figure: Figure) -> None:
        panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
        for axis, column in zip(panels, columns, strict=True):
            bars(axis, results, column)

    return draw


def curves(
    axis: Axes,
    results: Results,
    column: str,
    variants: Sequence[str] | None = None,
    *,
    measured: bool = False,
    logarithmic: bool = False,
) -> None:
    """A line for each variant: the mean over its seeds at each step.

    `measured` takes the column from the study's batch measure instead of the metrics.
    """
    curve_of = FinishedRun.measured_curve if measured else FinishedRun.training_curve
    for name in variants or results.variants:
        runs = [dict(zip(*curve_of(run, column), strict=True)) for run in results.of(name)]
        shared = sorted(set.intersection(*(set(run) for run in runs))) if runs else []
        means = [statistics.fmean(run[step] for run in runs) for step in shared]
        # No legend entry for a variant without this number.
        if not all(map(math.isnan, means)):
            axis.plot(shared, means, label=name, linewidth=1.2)
    if logarithmic:
        axis.set_yscale("log")
    axis.set_xlabel("steps", fontsize=8)
    axis.set_ylabel(LABELS.get(column, column.replace("_", " ")), fontsize=8)
    axis.tick_params(labelsize=7)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=6, framealpha=0.5)
