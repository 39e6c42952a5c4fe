"""Time of the loss, which every rank computes on the whole batch, over that of a rank's network.

At 64 ranks, 4,096 images per step and projections of width 8,192: forward and backward pass of the
loss on [2, 4096, 8192], and of ResNet-50 with the paper's projector on the 64 images of one rank at
224 px, both in float32 on this CPU. Both are mostly matrix products, so the ratio holds for other
hardware better than the times do. The network is timed on 4 of the images, and the time is scaled.

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
from noneg.training.plan import plan_of

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
        method=name,
        recipe="paper",
        backbone="resnet50",
        size=SIDE,
        channels=3,
        batch_size=BATCH // RANKS,
    )
    method = build_method(plan_of(config)).to(memory_format=torch.channels_last)
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
