"""Draw docs/limit.png from the table of benchmarks/limit.py."""

import argparse
import csv
from collections import defaultdict
from pathlib import Path
from statistics import median

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

COLORS = {"noneg": "#1f6feb", "lightly": "#bf5700", "torchvision": "#8250df"}


def shares(table: Path, method: str) -> dict[str, list[float]]:
    """The speed of each side over that of the limit, round by round."""
    rounds: dict[str, dict[str, float]] = defaultdict(dict)
    with table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            # The matrix product has no images.
            if row["method"] == method and row["images_per_second"]:
                rounds[row["round"]][row["side"]] = float(row["images_per_second"])
    sides = [side for side in next(iter(rounds.values())) if side != "limit"]
    return {side: [each[side] / each["limit"] for each in rounds.values()] for side in sides}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, default=Path("benchmarks/results/limit.csv"))
    parser.add_argument("--method", default="vicreg")
    parser.add_argument("--out", type=Path, default=Path("docs/limit.png"))
    chosen = parser.parse_args()
    measured = shares(chosen.table, chosen.method)
    sides = sorted(measured, key=lambda side: median(measured[side]))
    figure, axes = plt.subplots(figsize=(7, 0.6 + 0.45 * len(sides)), layout="constrained")
    for place, side in enumerate(sides):
        color = COLORS[side.partition(",")[0]]
        middle = median(measured[side])
        axes.barh(place, middle, color=color, alpha=0.8)
        axes.plot(measured[side], [place] * len(measured[side]), "|", color="#24292f", alpha=0.6)
        axes.text(1.03, place, f"{middle:.3f}", va="center", fontsize=8)
    axes.set_yticks(range(len(sides)), sides)
    axes.axvline(1, color="#6e7781", linestyle="--", linewidth=1)
    axes.set_xlim(0, 1.15)
    axes.set_xlabel(
        f"share of the network's own speed, {chosen.method}: median, and each of "
        f"{len(measured[sides[0]])} rounds",
        fontsize=8,
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(chosen.out, dpi=110)


if __name__ == "__main__":
    main()
