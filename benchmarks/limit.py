"""How much of the network's own speed a whole training run keeps.

The limit is the network's forward and backward pass with its loss, on views drawn beforehand.
Whole runs are compared with it. noneg's is what `noneg train` does: fetch images, draw views,
optimizer, metrics, checkpoints. The others are the same network, loss and optimizer with a
DataLoader and the views of lightly and of torchvision, in the training process and with two
workers; the better of the two counts. The sides take turns of a few steps in one process. Each
share is relative to the limit in the same round; the median over the rounds is printed.

A large matrix product in the run's precision takes turns as well: the most that this machine does.
What a training step reaches of it is the limit's own limit. Its floating-point operations are
counted by torch, forward and backward; views, metrics and the optimizer count as none.

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
from torch.utils.flop_counter import FlopCounterMode

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
MATRIX = 2048
"""Side of the matrices: large enough that a larger one is no faster."""
PEAK = "matrix product"
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

    def operations(self) -> int:
        """Floating-point operations of a step, forward and backward; a multiply-add is two."""
        counter = FlopCounterMode(display=False)
        with counter:
            self.step()
        return counter.get_total_flops()


@final
class MatrixProduct:
    """Products of two square matrices, for about as long as a step takes."""

    def __init__(self, precision: str) -> None:
        dtype = torch.bfloat16 if precision.startswith("bf16") else torch.float32
        generator = torch.Generator().manual_seed(0)
        self.factors = [
            torch.randn(MATRIX, MATRIX, generator=generator).to(dtype) for _ in range(2)
        ]
        self.product = torch.empty(MATRIX, MATRIX, dtype=dtype)
        self.turn()

    def turn(self) -> float:
        """Floating-point operations per second."""
        repetitions = 8
        started = time.perf_counter()
        for _ in range(repetitions):
            torch.mm(*self.factors, out=self.product)
        return repetitions * 2 * MATRIX**3 / (time.perf_counter() - started)


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

    def begin(self, step: int, total_steps: int) -> None:
        """Every run starts at step 0, with no rows."""

    def observe(self, step: int, epoch: int, method: Method, embeddings: Embeddings) -> None:
        """Take the time of noneg's turn, and run the other sides."""
        since = step - WARM_UP
        if since < 0 or since % self.steps:
            return
        if since:
            seconds = time.perf_counter() - self.started
            turns = {"noneg": self.steps * BATCH / seconds}
            # The loop calls its observers without gradient.
            with torch.enable_grad():
                turns |= {name: turn() for name, turn in self.others.items()}
            self.rounds.append(turns)
            listed = ", ".join(
                f"{name} {speed:.0f}" for name, speed in turns.items() if name != PEAK
            )
            print(f"\n{listed} images/s; {PEAK} {turns[PEAK] / 1e9:.1f} GFLOP/s", flush=True)
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


FIGURES = ("images_per_second", "gflops", "share_of_matmul_peak")


def rows_of(turns: dict[str, float], per_image: float) -> list[list[str]]:
    """The rows of a round: side, and `FIGURES`.

    Args:
        turns: images per second of every side; of `PEAK`, floating-point operations per second.
        per_image: floating-point operations for an image.
    """
    rows = []
    for side, speed in turns.items():
        images = "" if side == PEAK else f"{speed:.1f}"
        operations = speed if side == PEAK else speed * per_image
        rows.append([side, images, f"{operations / 1e9:.1f}", f"{operations / turns[PEAK]:.4f}"])
    return rows


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
    of_peak: dict[str, dict[str, float]] = {}
    peak: dict[str, float] = {}
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
        limit = NetworkAlone(plan, pixels, steps)
        per_image = limit.operations() / BATCH
        sides: dict[str, Turn] = {
            "limit": limit.turn,
            PEAK: MatrixProduct(plan.config.precision).turn,
        }
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
            rows += [[name, number, *row] for row in rows_of(turns, per_image)]
        networks = [side for side in measured[0] if side != PEAK]
        shares[name] = {
            side: statistics.median(turns[side] / turns["limit"] for turns in measured)
            for side in networks
        }
        of_peak[name] = {
            side: statistics.median(turns[side] * per_image / turns[PEAK] for turns in measured)
            for side in networks
        }
        peak[name] = statistics.median(turns[PEAK] for turns in measured) / 1e9
        print(
            f"{name}: {per_image / 1e6:.1f} MFLOP per image; matrix product "
            f"({plan.config.precision}) {peak[name]:.1f} GFLOP/s\n"
            f"median share of the limit, and of the matrix product, {len(measured)} rounds"
        )
        for side, share in shares[name].items():
            print(f"  {side:24} {share:.3f}  {of_peak[name][side]:.3f}")
    out = chosen.out or (None if chosen.quick else "benchmarks/results/limit.csv")
    if out is not None:
        with open(out, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["method", "round", "side", *FIGURES])
            writer.writerows(rows)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {memory:.2f} GiB, {torch.get_num_threads()} threads")
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
                "share_of_matmul_peak": {
                    name: {side: round(each[side], 3) for side in ("limit", "noneg")}
                    for name, each in of_peak.items()
                },
                "matmul_peak_gflops": {name: round(each, 1) for name, each in peak.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
