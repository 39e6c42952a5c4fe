"""Draw docs/methods.png, accuracy of every method, from the table of benchmarks/methods.py."""

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from methods import TABLE, UNTRAINED
from noneg.methods import find_method
from speedrun import read_rows

COLORS = {
    "online-target": "#1f6feb",
    "decorrelation": "#bf5700",
    "distribution matching": "#8250df",
    "clustering": "#1a7f37",
    "contrastive": "#57606a",
    "control": "#afb8c1",
}


def means(rows: Sequence[Mapping[str, str]], dataset: str) -> dict[str, tuple[float, float]]:
    """Linear probe and nearest neighbors of each method, in percent, best linear probe last."""
    found: dict[str, list[Mapping[str, str]]] = defaultdict(list)
    for row in rows:
        if row["status"] == "done" and row["dataset"] == dataset and row["name"] == "small":
            found[row["method"]].append(row)
    scores = {
        method: tuple(100 * mean(float(row[probe]) for row in own) for probe in ("linear", "knn"))
        for method, own in found.items()
    }
    return dict(sorted(scores.items(), key=lambda item: item[1]))  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--out", type=Path, default=Path("docs/methods.png"))
    chosen = parser.parse_args()
    scores = means(read_rows(chosen.table), chosen.dataset)
    untrained = scores.pop(UNTRAINED, ())
    figure, axis = plt.subplots(figsize=(7, 0.26 * len(scores) + 1), layout="constrained")
    seen = set()
    for place, (method, (linear, knn)) in enumerate(scores.items()):
        traits = find_method(method).traits
        family = "control" if traits is None else traits.family
        color = COLORS[family]
        axis.plot([knn, linear], [place, place], color=color, linewidth=1)
        axis.plot(
            linear, place, "o", color=color, markersize=6, label=None if family in seen else family
        )
        axis.plot(knn, place, "o", color=color, markersize=6, markerfacecolor="white")
        seen.add(family)
    for value, style in zip(untrained, ("--", ":"), strict=False):
        axis.axvline(value, color="#6e7781", linestyle=style, linewidth=1)
    axis.set_yticks(range(len(scores)), list(scores))
    axis.set_xlabel(
        "accuracy in percent: full circles linear probe, hollow ones nearest neighbors\n"
        "the same before training: broken line linear probe, dotted line nearest neighbors"
    )
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="x", linewidth=0.4)
    axis.legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(chosen.out, dpi=150)


if __name__ == "__main__":
    main()
