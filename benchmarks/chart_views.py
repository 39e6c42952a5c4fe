"""Draw docs/views.png from the table of benchmarks/views.py."""

import argparse
import csv
from collections import defaultdict
from pathlib import Path
from statistics import median

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

TABLE = Path("benchmarks/results/views.csv")
COLORS = {
    "noneg": "#1f6feb",
    "lightly": "#bf5700",
    "torchvision": "#8250df",
    "kornia": "#1a7f37",
}
CASES = {
    "32": "32 px",
    "96": "96 px from 128",
    "224": "224 px from 256",
    "jpeg": "224 px from JPEG",
}


def medians() -> dict[tuple[str, str], float]:
    measured: dict[tuple[str, str], list[float]] = defaultdict(list)
    with TABLE.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            measured[row["case"], row["side"]].append(float(row["images_per_second"]))
    return {key: median(values) for key, values in measured.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/views.png"))
    out = parser.parse_args().out
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    speeds = medians()
    for number, (side, color) in enumerate(COLORS.items()):
        places = [place + 0.2 * (number - 1.5) for place in range(len(CASES))]
        heights = [speeds[case, side] for case in CASES]
        bars = axes.bar(places, heights, 0.19, color=color, label=side)
        axes.bar_label(bars, [f"{height:,.0f}" for height in heights], fontsize=6)
    axes.set_yscale("log")
    axes.set_xticks(range(len(CASES)), list(CASES.values()))
    axes.set_ylabel("images (two views each) per second")
    axes.set_title("Drawing views, one thread", fontsize=10)
    axes.legend(fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main()
