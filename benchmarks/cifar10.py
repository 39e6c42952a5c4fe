"""Train on CIFAR-10 without labels, and score: one row per run, and its kNN accuracy over time.

DATA holds train/ and test/ with a subfolder per class. Runs that are in the table already are
skipped.

    python benchmarks/cifar10.py DATA --methods vicreg byol --seeds 0 1 2 --epochs 6
"""

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import torch

import noneg
from noneg.diagnostics import normalized_std
from noneg.images import find_source, load_images
from noneg.training.run import Run

TABLE = Path("benchmarks/results/cifar10.csv")
CURVES = Path("benchmarks/results/cifar10_curves.csv")


def append(path: Path, row: dict[str, Any]) -> None:
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def is_done(method: str, seed: int, epochs: int) -> bool:
    if not TABLE.exists():
        return False
    with TABLE.open(newline="", encoding="utf-8") as file:
        wanted = (method, str(seed), str(epochs))
        return any(
            (row["method"], row["seed"], row["epochs"]) == wanted for row in csv.DictReader(file)
        )


def last_metrics(run: Run) -> dict[str, str]:
    with (run.directory / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))[-1]


def record(run: Run, test: Path, epochs: int, seconds: float) -> None:
    """Append the figures after the last epoch, never the best ones."""
    config, last = run.config, last_metrics(run)
    scores = {score.features: score for score in run.scores}
    pixels = load_images(find_source(test), channels=3, size=32).pixels
    h = torch.from_numpy(run.encoder.embed(torch.from_numpy(pixels[::5])))
    append(
        TABLE,
        {
            "method": config.method,
            "seed": config.seed,
            "epochs": epochs,
            "views": last["views"],
            **{
                f"{name}_{probe}": f"{getattr(score, probe):.4f}"
                for name, score in scores.items()
                for probe in ("knn", "linear")
            },
            "std_h_test": f"{float(normalized_std(h)):.4f}",
            "last_loss": last["loss"],
            "train_seconds": last["seconds"],
            "total_seconds": f"{seconds:.0f}",
            "threads": torch.get_num_threads(),
            "command": (
                f"noneg train DATA/train --eval-data DATA/test --method {config.method} "
                f"--epochs {epochs} --seed {config.seed}"
            ),
        },
    )
    with (run.directory / "knn.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            append(CURVES, {"method": config.method, "seed": config.seed, "epochs": epochs, **row})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--methods", nargs="+", required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the runs go")
    chosen = parser.parse_args()
    for seed in chosen.seeds:
        for method in chosen.methods:
            if is_done(method, seed, chosen.epochs):
                continue
            started = time.perf_counter()
            run = noneg.train(
                chosen.data / "train",
                eval_data=chosen.data / "test",
                method=method,
                seed=seed,
                epochs=chosen.epochs,
                knn_every=1,
                out=str(chosen.runs / f"cifar10-{method}-{chosen.epochs}-{seed}"),
            )
            record(run, chosen.data / "test", chosen.epochs, time.perf_counter() - started)


if __name__ == "__main__":
    main()
