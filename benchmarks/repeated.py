"""How the loss, which every rank computes on the whole batch, compares with a rank's own network.

At 64 ranks, 4,096 images a step and projections of 8,192: the loss's forward and backward on
[2, 4096, 8192], and ResNet-50's with the paper's projector on a rank's 64 images of 224 px, both in
float32 on this CPU. Both are matrix products for the most part, so that the ratio is of use where
the absolute times are not. The network is timed on a part of the images and scaled.

    python benchmarks/repeated.py      about three minutes on one thread
"""

import argparse
import csv
import json
import statistics
import time
from pathlib import Path

import torch

from noneg.losses import barlow_twins, vicreg
from noneg.training.build import build_method
from noneg.training.config import make_config

RANKS, BATCH, WIDTH = 64, 4096, 8192
TIMED_IMAGES, SIDE = 4, 224


def time_loss(name: str) -> float:
    z = torch.randn(2, BATCH, WIDTH, requires_grad=True)
    started = time.perf_counter()
    terms = vicreg(z) if name == "vicreg" else barlow_twins(z)
    torch.stack(list(terms.values())).sum().backward()
    return time.perf_counter() - started


def time_network(name: str) -> float:
    config = make_config(
        "shapes", method=name, recipe="paper", backbone="resnet50", size=SIDE, channels=3
    )
    method = build_method(config).to(memory_format=torch.channels_last)
    views = (
        torch.randn(TIMED_IMAGES, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last),
    ) * 2
    method.embed(views)
    started = time.perf_counter()
    method.embed(views).z.square().mean().backward()
    return (time.perf_counter() - started) * BATCH / RANKS / TIMED_IMAGES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/repeated.csv"))
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    rows: list[list[object]] = []
    shares = {}
    for name in ("vicreg", "barlow_twins"):
        ratios = []
        for number in range(chosen.rounds):
            loss, network = time_loss(name), time_network(name)
            ratios.append(loss / network)
            rows.append([name, number, f"{loss:.2f}", f"{network:.2f}", f"{ratios[-1]:.3f}"])
            print(*rows[-1], flush=True)
        shares[name] = round(statistics.median(ratios), 3)
    with chosen.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "round", "loss_seconds", "network_seconds", "ratio"])
        writer.writerows(rows)
    print(json.dumps({"loss_over_network": shares, "rounds": chosen.rounds}))


if __name__ == "__main__":
    main()
