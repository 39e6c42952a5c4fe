"""Draw docs/speedrun.png from the table of benchmarks/speedrun.py: accuracy against CPU minutes."""

import argparse
import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

SIDES = {
    "supervised": ("with labels (ceiling)", "#6e7781"),
    "noneg": ("noneg", "#1f6feb"),
    "previous": ("noneg 0.1.0", "#8ab4f8"),
    "lightly_ours": ("lightly, noneg's recipe", "#e8a066"),
    "lightly": ("lightly, its own example", "#bf5700"),
}
LEVELS = {"patches": "whitened patches, k-means", "pixels": "raw pixels"}

PROBES = {"knn": "kNN", "linear": "linear probe"}

Row = Mapping[str, str]


def points(rows: Sequence[Row], probe: str) -> list[tuple[float, float, float]]:
    """(minutes of the budget, mean accuracy in percent, spread) of an entry, by budget."""
    by_budget: dict[float, list[float]] = defaultdict(list)
    for row in rows:
        by_budget[float(row["budget_s"]) * int(row["cores"]) / 60].append(100 * float(row[probe]))
    return [
        (minutes, mean(values), stdev(values) if len(values) > 1 else 0.0)
        for minutes, values in sorted(by_budget.items())
    ]


def draw(axes: Axes, rows: Sequence[Row], probe: str) -> None:
    """All sides on one data set, and the baselines as levels."""
    for entry, (label, color) in SIDES.items():
        if found := points([row for row in rows if row["entry"] == entry], probe):
            minutes, means, spreads = zip(*found, strict=True)
            axes.errorbar(
                minutes, means, spreads, color=color, label=label, marker="o", ms=4, capsize=2
            )
    for (entry, label), style in zip(LEVELS.items(), ("--", ":"), strict=True):
        values = [100 * float(row[probe]) for row in rows if row["entry"] == entry]
        if values:
            axes.axhline(mean(values), color="#24292f", linestyle=style, linewidth=1, label=label)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, default=Path("benchmarks/results/speedrun.csv"))
    parser.add_argument("--split", choices=("dev", "test"), default="dev")
    parser.add_argument("--probes", nargs="+", choices=tuple(PROBES), default=list(PROBES))
    parser.add_argument("--datasets", nargs="+", help="default: all")
    parser.add_argument("--out", type=Path, default=Path("docs/speedrun.png"))
    chosen = parser.parse_args()
    with chosen.table.open(newline="", encoding="utf-8") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if row["status"] == "done"
            and row["split"] == chosen.split
            and row["dataset"] in (chosen.datasets or [row["dataset"]])
        ]
    # A recipe may have changed under the name of its entry: the last one counts.
    latest = {(row["dataset"], row["entry"]): row["settings"] for row in rows}
    rows = [row for row in rows if latest[row["dataset"], row["entry"]] == row["settings"]]
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    if not datasets:
        raise SystemExit(f"{chosen.table} has no finished rows of {chosen.split} images")
    shown = [(dataset, probe) for dataset in datasets for probe in chosen.probes]
    figure, panels = plt.subplots(
        1, len(shown), figsize=(1 + 3.2 * len(shown), 3.8), layout="constrained", squeeze=False
    )
    for axes, (dataset, probe) in zip(panels[0], shown, strict=True):
        draw(axes, [row for row in rows if row["dataset"] == dataset], probe)
        axes.set_title(f"{dataset}, {PROBES[probe]}", loc="left", fontsize=10)
        axes.set_xscale("log")
        ticks = sorted(
            {
                float(row["budget_s"]) * int(row["cores"]) / 60
                for row in rows
                if float(row["budget_s"]) > 0
            }
        )
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("CPU minutes of training")
        axes.spines[["top", "right"]].set_visible(False)
    images = {"dev": "held-out", "test": "test"}[chosen.split]
    panels[0][0].set_ylabel(f"accuracy on {images} images, %")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, ncols=4, loc="outside lower center", fontsize=8)
    figure.savefig(chosen.out, dpi=150)


if __name__ == "__main__":
    main()
