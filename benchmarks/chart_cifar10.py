"""Draw docs/cifar10.png from the tables of benchmarks/cifar10.py."""

import argparse
import csv
from collections import defaultdict
from pathlib import Path
from statistics import mean

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

RESULTS = Path("benchmarks/results")
COLORS = {
    "vicreg": "#1f6feb",
    "barlow_twins": "#8250df",
    "byol": "#bf5700",
    "simsiam": "#1a7f37",
    "siamese": "#6e7781",
}


def rows(name: str) -> list[dict[str, str]]:
    with (RESULTS / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/cifar10.png"))
    out = parser.parse_args().out
    table, curves = rows("cifar10.csv"), rows("cifar10_curves.csv")
    figure, axes = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
    runs: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for row in curves:
        point = float(row["views"]) / 1000, 100 * float(row["knn"])
        runs[row["method"], row["epochs"]][row["seed"]].append(point)
    labeled = set()
    for (method, _), seeds in sorted(runs.items(), key=lambda item: int(item[0][1])):
        for points in seeds.values():
            label = method if method not in labeled else None
            labeled.add(method)
            axes.plot(*zip(*points, strict=True), color=COLORS[method], label=label, linewidth=1.6)
    for kind, style in (("pixels", "--"), ("untrained", ":")):
        level = 100 * mean(float(row[f"{kind}_knn"]) for row in table)
        axes.axhline(level, color="#24292f", linestyle=style, linewidth=1)
        name = "raw pixels" if kind == "pixels" else "untrained"
        axes.text(1, level, f" {name}", va="top", ha="right", transform=axes.get_yaxis_transform())
    axes.set_xlabel("thousand views seen")
    axes.set_ylabel("kNN accuracy, %")
    axes.set_title("CIFAR-10 without labels, small_resnet, one CPU thread", loc="left")
    axes.legend(frameon=False, ncols=3, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(10, 60)
    figure.savefig(out, dpi=150)


if __name__ == "__main__":
    main()
