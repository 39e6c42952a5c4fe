"""Draw docs/losses.png, time and memory by width, from the table of benchmarks/losses.py."""

import argparse
import csv
from collections import defaultdict
from pathlib import Path
from statistics import median

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

COLORS = {"noneg": "#1f6feb", "lightly": "#bf5700", "plain": "#6e7781"}
LABELS = {"noneg": "noneg", "lightly": "lightly 1.6", "plain": "plain d x d"}
TITLES = {"vicreg": "VICReg", "barlow_twins": "Barlow Twins"}
STYLES = {"64": ":", "256": "-", "1024": "--"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, default=Path("benchmarks/results/losses.csv"))
    parser.add_argument("--out", type=Path, default=Path("docs/losses.png"))
    chosen = parser.parse_args()
    seconds: dict[tuple[str, str, str, str], list[float]] = defaultdict(list)
    memory: dict[tuple[str, str, str, str], float] = {}
    with chosen.table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            key = row["loss"], row["side"], row["batch"], row["width"]
            seconds[key].append(float(row["seconds"]))
            memory[key] = int(row["peak_bytes"]) / 2**20
    times = {key: median(values) for key, values in seconds.items()}
    figure, axes = plt.subplots(
        2, 2, figsize=(8, 6.4), layout="constrained", sharex=True, sharey="row"
    )
    for column, (loss, title) in enumerate(TITLES.items()):
        axes[0, column].set_title(title, loc="left")
        axes[1, column].set_xlabel("width d")
        for line, values in enumerate((times, memory)):
            panel = axes[line, column]
            for side, color in COLORS.items():
                for batch, style in STYLES.items():
                    points = sorted(
                        (int(width), value)
                        for (which, whose, n, width), value in values.items()
                        if (which, whose, n) == (loss, side, batch)
                    )
                    panel.plot(
                        *zip(*points, strict=True),
                        color=color,
                        linestyle=style,
                        marker="o",
                        markersize=3,
                        linewidth=1.4,
                    )
            panel.set_xscale("log", base=2)
            panel.set_yscale("log")
            panel.set_xticks([256, 2048, 8192], ["256", "2048", "8192"])
            panel.spines[["top", "right"]].set_visible(False)
            panel.grid(axis="y", linewidth=0.4)
    axes[0, 0].set_ylabel("seconds, forward and backward")
    axes[1, 0].set_ylabel("peak memory beyond the embeddings, MiB")
    for side, color in COLORS.items():
        axes[0, 0].plot([], [], color=color, label=LABELS[side])
    for batch, style in STYLES.items():
        axes[0, 0].plot([], [], color="#24292f", linestyle=style, label=f"n = {batch}")
    axes[0, 0].legend(frameon=False, ncols=2, fontsize=8)
    figure.savefig(chosen.out, dpi=150)


if __name__ == "__main__":
    main()
