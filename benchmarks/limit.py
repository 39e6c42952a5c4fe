"""How much of the network's own speed a whole training run keeps.

The limit is the network's forward and backward pass with its loss, on views that are already
there. Against it stands the same number of steps of a run: images fetched, views drawn, optimiser,
target network, metrics, checkpoints, Lightning. The two sides alternate in one process; medians
are quoted.

    python benchmarks/limit.py            about five minutes
    python benchmarks/limit.py --quick    under two minutes
"""

import argparse
import csv
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, Trainer

from noneg.encoder import EncoderInfo
from noneg.images import find_source
from noneg.images.shapes import draw_shapes
from noneg.training.config import TrainConfig, make_config
from noneg.training.hardware import choose_hardware
from noneg.training.prepare import (
    build_method,
    complete,
    load_for_training,
    measure_normalisation,
)
from noneg.training.run import describe_encoder, fit
from noneg.training.step import compute_gradient
from noneg.views import draw_views

WARM_UP = 3
IMAGES, BATCH = 2048, 256


class Clock(Callback):
    """Seconds from the end of the warm-up to the end of the last step."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.started = self.seconds = 0.0

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == WARM_UP:
            self.started = time.perf_counter()
        if trainer.global_step == WARM_UP + self.steps:
            self.seconds = time.perf_counter() - self.started


def end_to_end(config: TrainConfig, pixels: np.ndarray, steps: int) -> float:
    """Images a second of a run as `noneg train` makes it."""
    with tempfile.TemporaryDirectory() as folder:
        source = find_source(pixels)
        images = load_for_training(source, config, Path(folder))
        method = build_method(config)
        info: EncoderInfo = describe_encoder(method.backbone, config, images)
        clock = Clock(steps)
        fit(
            method,
            images,
            config,
            Path(folder),
            info,
            choose_hardware(config),
            extra_callbacks=[clock],
        )
    assert config.batch_size is not None
    return steps * config.batch_size / clock.seconds


def network_alone(config: TrainConfig, pixels: np.ndarray, steps: int) -> float:
    """Images a second of forward, loss and backward on ready views, in the run's precision."""
    assert config.batch_size is not None
    assert config.size is not None
    method = build_method(config).to(memory_format=torch.channels_last)
    images = torch.from_numpy(pixels[: config.batch_size]).permute(0, 3, 1, 2).contiguous()
    index = torch.arange(config.batch_size)
    mean, std = measure_normalisation(images.numpy())
    policy = config.policy(config.size)
    views = draw_views(images, index, policy, size=config.size, seed=0, epoch=0, mean=mean, std=std)
    mixed = choose_hardware(config).precision == "bf16-mixed"
    started = 0.0
    for step in range(WARM_UP + steps):
        if step == WARM_UP:
            started = time.perf_counter()
        for parameter in method.parameters():
            parameter.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            compute_gradient(method, views, index)
    return steps * config.batch_size / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--methods", nargs="+", default=None)
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--out", default="benchmarks/results/limit.csv")
    chosen = parser.parse_args()
    methods = chosen.methods or (["vicreg"] if chosen.quick else ["vicreg", "byol"])
    rounds = chosen.rounds or (3 if chosen.quick else 7)
    steps = chosen.steps or (10 if chosen.quick else 20)
    pixels = np.ascontiguousarray(draw_shapes(IMAGES, seed=0).pixels.transpose(0, 2, 3, 1))
    rows = []
    shares = {}
    for name in methods:
        config = make_config(
            pixels,
            method=name,
            batch_size=BATCH,
            epochs=-(-(WARM_UP + steps) // (IMAGES // BATCH)),
            evaluate=False,
        )
        config = complete(config, find_source(pixels))
        ratios = []
        for number in range(rounds):
            limit = network_alone(config, pixels, steps)
            run = end_to_end(config, pixels, steps)
            ratios.append(run / limit)
            rows.append([name, number, f"{limit:.1f}", f"{run:.1f}", f"{run / limit:.3f}"])
            print(f"{name} round {number}: limit {limit:.0f}, run {run:.0f} images/s", flush=True)
        shares[name] = round(statistics.median(ratios), 3)
        print(f"{name}: median share {shares[name]} of the limit, n = {rounds}")
    with open(chosen.out, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["method", "round", "limit_images_per_second", "run_images_per_second", "share"]
        )
        writer.writerows(rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak:.2f} GiB, {torch.get_num_threads()} threads")
    print(json.dumps({"share": {"noneg": shares[methods[0]]}, "by_method": shares}))


if __name__ == "__main__":
    main()
