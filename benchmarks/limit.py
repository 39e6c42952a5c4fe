"""How much of the network's own speed a whole training run keeps.

The limit is the network's forward and backward pass with its loss, on views drawn beforehand.
Whole runs are compared with it. noneg's is what `noneg train` does: fetch images, draw views,
optimizer, metrics, checkpoints. The others are the same network, loss and optimizer with a
DataLoader and the views of lightly and of torchvision, in the training process and with two
workers; the better of the two counts. The sides take turns of a few steps in one process. Each
share is relative to the limit in the same round; the median over the rounds is printed.

    pip install 'noneg[bench]'
    python benchmarks/limit.py            about ten minutes
    python benchmarks/limit.py --quick    under two minutes
"""

import argparse
import csv
import json
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import final

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from noneg.images import find_source
from noneg.images.shapes import draw_shapes
from noneg.methods.base import Embeddings, Method
from noneg.records.directory import RunDirectory
from noneg.training.build import (
    arrange_memory,
    build_method,
    describe_encoder,
    draw_first_views,
)
from noneg.training.config import make_config
from noneg.training.data import load_for_training, measure_normalization
from noneg.training.hardware import keep_freed_memory
from noneg.training.launch import launch
from noneg.training.loop import Observer, train_method
from noneg.training.optimizers import build_optimizer
from noneg.training.plan import Plan, complete
from noneg.training.precision import choose_precision
from noneg.training.step import compute_gradient
from noneg.views import draw_views
from peers import lightly_views, require, torchvision_views

WARM_UP = 3
IMAGES, BATCH = 2048, 256
Turn = Callable[[], float]


class NetworkAlone:
    """Forward pass, loss and backward pass on given views, in the run's precision."""

    def __init__(self, plan: Plan, pixels: np.ndarray, steps: int) -> None:
        self.steps = steps
        self.method = build_method(plan).to(memory_format=torch.channels_last)
        self.mixed = plan.config.precision == "bf16-mixed"
        images = torch.from_numpy(pixels[:BATCH]).permute(0, 3, 1, 2).contiguous()
        self.index = torch.arange(BATCH)
        mean, std = measure_normalization(images.numpy())
        self.views = draw_views(
            images, self.index, plan.policy, size=plan.size, seed=0, epoch=0, mean=mean, std=std
        )
        self.step()

    def step(self) -> None:
        for parameter in self.method.parameters():
            parameter.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=self.mixed):
            compute_gradient(self.method, self.views, self.index)

    def turn(self) -> float:
        """Images per second."""
        started = time.perf_counter()
        for _ in range(self.steps):
            self.step()
        return self.steps * BATCH / (time.perf_counter() - started)


class Peer(NetworkAlone):
    """The same network with its optimizer, on views from a DataLoader."""

    def __init__(
        self,
        plan: Plan,
        pixels: np.ndarray,
        steps: int,
        transform: Callable[[np.ndarray], list[Tensor]],
        workers: int,
    ) -> None:
        super().__init__(plan, pixels, steps)
        self.optimizer = build_optimizer(self.method, plan.config, BATCH)
        self.loader = DataLoader(
            TransformedImages(pixels, transform),
            BATCH,
            shuffle=True,
            num_workers=workers,
            drop_last=True,
        )

    def turn(self) -> float:
        # Workers only live during this turn, so that they do not slow the other sides.
        batches = self._endless()
        self._train_on(next(batches))
        started = time.perf_counter()
        for _ in range(self.steps):
            self._train_on(next(batches))
        speed = self.steps * BATCH / (time.perf_counter() - started)
        batches.close()
        return speed

    def _endless(self) -> Iterator[list[Tensor]]:
        while True:
            yield from self.loader

    def _train_on(self, views: list[Tensor]) -> None:
        self.views = tuple(view.contiguous(memory_format=torch.channels_last) for view in views)
        self.step()
        self.optimizer.step()


class TransformedImages(Dataset[list[Tensor]]):
    def __init__(self, pixels: np.ndarray, transform: Callable[[np.ndarray], list[Tensor]]) -> None:
        self.pixels = pixels
        self.transform = transform

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> list[Tensor]:
        return self.transform(self.pixels[index])


class LightlyTransform:
    def __init__(self, size: int) -> None:
        self.views = lightly_views(size)

    def __call__(self, pixels: np.ndarray) -> list[Tensor]:
        return self.views(Image.fromarray(pixels))


class TorchvisionTransform:
    def __init__(self, size: int) -> None:
        self.views = torchvision_views(size)

    def __call__(self, pixels: np.ndarray) -> list[Tensor]:
        image = torch.from_numpy(pixels).permute(2, 0, 1)
        return [view(image) for view in self.views]


@final
class TakingTurns(Observer):
    """Stops the clock of noneg's run after every few steps, and gives the other sides a turn."""

    def __init__(self, steps: int, others: dict[str, Turn]) -> None:
        self.steps = steps
        self.others = others
        self.rounds: list[dict[str, float]] = []
        self.started = 0.0

    def begin(self, step: int) -> None:
        """Every run starts at step 0, with no rows."""

    def observe(self, step: int, epoch: int, method: Method, embeddings: Embeddings) -> None:
        """Take the time of noneg's turn, and run the other sides."""
        since = step - WARM_UP
        if since < 0 or since % self.steps:
            return
        if since:
            seconds = time.perf_counter() - self.started
            turns = {"noneg": self.steps * BATCH / seconds}
            turns |= {name: turn() for name, turn in self.others.items()}
            self.rounds.append(turns)
            listed = ", ".join(f"{name} {speed:.0f}" for name, speed in turns.items())
            print(f"\n{listed} images/s", flush=True)
        self.started = time.perf_counter()


def plan_in_its_precision(plan: Plan, pixels: np.ndarray) -> Plan:
    """The plan with the precision that a run would choose, for all sides."""
    with tempfile.TemporaryDirectory() as folder:
        images = load_for_training(find_source(pixels), plan, RunDirectory(Path(folder)))
    method = build_method(plan)
    info = describe_encoder(method.backbone, plan, images)
    choice = choose_precision(
        plan.config.precision,
        plan.hardware,
        method,
        lambda most: draw_first_views(images, plan, info, most),
        torch.device("cpu"),
    )
    print(choice.reason)
    return replace(plan, config=replace(plan.config, precision=choice.name))


def take_turns(
    plan: Plan, pixels: np.ndarray, steps: int, others: dict[str, Turn]
) -> list[dict[str, float]]:
    """Images per second of every side, round by round."""
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory(Path(folder))
        images = load_for_training(find_source(pixels), plan, run)
        method = build_method(plan)
        arrange_memory(method, plan)
        info = describe_encoder(method.backbone, plan, images)
        turns = TakingTurns(steps, others)
        train_method(launch(plan), method, images, plan, info, run, observers=[turns])
    return turns.rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--methods", nargs="+", default=None)
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument(
        "--out", default=None, help="table of a full run; --quick only writes one if this is given"
    )
    chosen = parser.parse_args()
    require("lightly")
    warnings.filterwarnings("ignore", module="torch.utils.data")
    keep_freed_memory()
    methods = chosen.methods or (["vicreg"] if chosen.quick else ["vicreg", "byol"])
    rounds = chosen.rounds or (7 if chosen.quick else 15)
    steps = chosen.steps or (3 if chosen.quick else 8)
    pixels = np.ascontiguousarray(draw_shapes(IMAGES, seed=0).pixels.transpose(0, 2, 3, 1))
    rows = []
    shares: dict[str, dict[str, float]] = {}
    for name in methods:
        config = make_config(
            pixels,
            method=name,
            views="byol",
            batch_size=BATCH,
            epochs=-(-(WARM_UP + rounds * steps) // (IMAGES // BATCH)),
            evaluate=False,
            accelerator="cpu",
        )
        plan = plan_in_its_precision(complete(config, find_source(pixels)), pixels)
        sides: dict[str, Turn] = {"limit": NetworkAlone(plan, pixels, steps).turn}
        if name == methods[0]:
            for peer, transform in (
                ("lightly", LightlyTransform(plan.size)),
                ("torchvision", TorchvisionTransform(plan.size)),
            ):
                for workers in (0,) if chosen.quick else (0, 2):
                    side = Peer(plan, pixels, steps, transform, workers)
                    sides[f"{peer}, {workers} workers"] = side.turn
        measured = take_turns(plan, pixels, steps, sides)
        for number, turns in enumerate(measured):
            rows += [[name, number, side, f"{speed:.1f}"] for side, speed in turns.items()]
        shares[name] = {
            side: statistics.median(turns[side] / turns["limit"] for turns in measured)
            for side in measured[0]
        }
        print(f"{name}: median share of the limit, {len(measured)} rounds")
        for side, share in shares[name].items():
            print(f"  {side:24} {share:.3f}")
    out = chosen.out or (None if chosen.quick else "benchmarks/results/limit.csv")
    if out is not None:
        with open(out, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["method", "round", "side", "images_per_second"])
            writer.writerows(rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak:.2f} GiB, {torch.get_num_threads()} threads")
    first = shares[methods[0]]
    best = {
        peer: max(share for side, share in first.items() if side.startswith(peer))
        for peer in ("noneg", "lightly", "torchvision")
    }
    print(
        json.dumps(
            {
                "share": {name: round(share, 3) for name, share in best.items()},
                "noneg_by_method": {name: round(each["noneg"], 3) for name, each in shares.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
