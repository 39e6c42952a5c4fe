"""Draw docs/methods.png, accuracy of every method, from the table of benchmarks/methods.py."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from methods_table import TABLE, UNTRAINED, family_of, finished, grouped, mean_of
from speedrun import read_rows

COLORS = {
    "online-target": "#1f6feb",
    "decorrelation": "#bf5700",
    "distribution matching": "#8250df",
    "clustering": "#1a7f37",
    "contrastive": "#57606a",
    "control": "#afb8c1",
}
PROBES = ("linear", "knn")


def draw(
    axis: Axes,
    rows: Mapping[tuple[str, ...], Sequence[Mapping[str, str]]],
    order: Sequence[tuple[str, ...]],
) -> None:
    """Both accuracies of each method, from bottom to top, and those before training.

    Args:
        axis: to draw on.
        rows: of one data set, by method.
        order: the methods, the lowest first.
    """
    before = rows.get((UNTRAINED,), [])
    for probe, style in zip(PROBES, ("--", ":"), strict=True):
        axis.axvline(100 * mean_of(before, probe), color="#6e7781", linestyle=style, linewidth=1)
    for place, method in enumerate(order):
        linear, knn = (100 * mean_of(rows.get(method, []), probe) for probe in PROBES)
        color = COLORS[family_of(*method)]
        axis.plot([knn, linear], [place, place], color=color, linewidth=1)
        axis.plot(linear, place, "o", color=color, markersize=6)
        axis.plot(knn, place, "o", color=color, markersize=6, markerfacecolor="white")
    axis.spines[["top", "right"]].set_visible(False)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(axis="x", linewidth=0.4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--out", type=Path, default=Path("docs/methods.png"))
    chosen = parser.parse_args()
    by_dataset = grouped(finished(read_rows(chosen.table)), "dataset")
    first = grouped(next(iter(by_dataset.values())), "method")
    order = sorted(
        (method for method in first if method != (UNTRAINED,)),
        key=lambda method: mean_of(first[method], "linear"),
    )
    figure, axes = plt.subplots(
        ncols=len(by_dataset),
        sharey=True,
        squeeze=False,
        figsize=(2.5 + 4 * len(by_dataset), 0.26 * len(order) + 1.2),
        layout="constrained",
    )
    for axis, ((dataset,), rows) in zip(axes[0], by_dataset.items(), strict=True):
        draw(axis, grouped(rows, "method"), order)
        axis.set_title(dataset, fontsize=10)
    axes[0][0].set_yticks(range(len(order)), [method for (method,) in order])
    axes[0][0].set_ylim(-0.7, len(order) - 0.3)
    families = {family_of(*method) for method in order}
    for family, color in COLORS.items():
        if family in families:
            axes[0][0].plot([], [], "o", color=color, label=family)
    figure.legend(frameon=False, fontsize=8, loc="outside upper center", ncols=3)
    figure.supxlabel(
        "accuracy in percent: full circles linear probe, hollow ones nearest neighbors\n"
        "the same before training: broken line linear probe, dotted line nearest neighbors",
        fontsize=9,
    )
    figure.savefig(chosen.out, dpi=150)


if __name__ == "__main__":
    main()
