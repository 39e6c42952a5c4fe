"""How long a step of each method takes, in steps of VICReg: with its small recipe, in CPU time.

    python benchmarks/methods_pace.py --images cifar10=CIFAR10 --core 0
    python benchmarks/methods_pace.py --images cifar10=CIFAR10 --methods mmcr --set views=gentle

VICReg and the method train in two processes on one core, a step by turns. A ratio of steps that are
measured within a second depends little on the machine and on what else it does; methods.py gives
each method its number of steps by it.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Semaphore
from pathlib import Path
from typing import Any, final

import numpy as np

from budget import use_cores
from noneg.methods import find_method, list_methods
from noneg.methods.base import Embeddings, Method
from noneg.training.loop import Observer
from speedrun import append, data_set, device, given_settings, read_rows
from speedrun_data import checkout, load_dev
from speedrun_entry import Job, train_steps

TABLE = Path(__file__).parent / "results/methods_pace.csv"
COLUMNS = ("date", "commit", "method", "settings", "blocks", "pace", "least", "most", "device")
REFERENCE = "vicreg"
BLOCK = 10
"""Steps; one of ten also writes a row of metrics."""

COMPARED = [name for name in list_methods() if name not in ("distill", "i_jepa")]
"""One of the others learns from another network, one takes transformers alone."""


def pace_of(method: str, settings: str, table: Path = TABLE) -> float:
    """The time of a step, in steps of VICReg.

    Args:
        method: its name.
        settings: beside its small recipe, as JSON; those that were not timed, such as a learning
            rate, count as the recipe itself.
        table: where paces are.

    Raises:
        SystemExit: the method was not timed.
    """
    if method == REFERENCE and settings == "{}":
        return 1.0
    known = {(row["method"], row["settings"]): float(row["pace"]) for row in read_rows(table)}
    for key in ((method, settings), (method, "{}")):
        if key in known:
            return known[key]
    raise SystemExit(f"time {method} first: python benchmarks/methods_pace.py --methods {method}")


@final
class Turns(Observer):
    """The process's CPU time after each step; then the other process takes one."""

    def __init__(self, mine: Semaphore, other: Semaphore) -> None:
        self.mine, self.other = mine, other
        self.times: list[float] = []
        self.steps = 0

    def begin(self, step: int, total_steps: int) -> None:
        """Wait for the first turn."""
        self.steps = total_steps
        self.mine.acquire()

    def observe(self, step: int, epoch: int, method: Method, embeddings: Embeddings) -> None:
        """Read the clock, and wait for the next turn, if there is one."""
        self.times.append(time.process_time())
        self.other.release()
        if len(self.times) < self.steps:
            self.mine.acquire()


def take_turns(
    side: int,
    method: str,
    settings: Mapping[str, Any],
    pixels: np.ndarray,
    steps: int,
    turns: tuple[Semaphore, Semaphore],
    found: "Queue[tuple[int, list[float]]]",
) -> None:
    """In a process of its own: train, and report the clock after each step."""
    import torch

    torch.set_num_threads(1)
    batch_size = settings.get("batch_size") or find_method(method).recipe("small").batch_size
    watch = Turns(*turns)
    job = Job([method], {**settings, "method": method}, "", 0, [], 0, "")
    with tempfile.TemporaryDirectory() as folder:
        train_steps(job, pixels[: batch_size * steps], steps, [watch], Path(folder) / "timed")
    found.put((side, watch.times))


def ratios_of(
    method: str, settings: Mapping[str, Any], pixels: np.ndarray, blocks: int
) -> list[float]:
    """CPU time of each block of steps, divided by that of VICReg's. The first one warms up."""
    context = multiprocessing.get_context("spawn")
    first, second = context.Semaphore(1), context.Semaphore(0)
    found: Queue[tuple[int, list[float]]] = context.Queue()
    steps = BLOCK * (blocks + 1)
    sides = [(REFERENCE, {}, (first, second)), (method, settings, (second, first))]
    both = [
        context.Process(target=take_turns, args=(side, name, given, pixels, steps, turns, found))
        for side, (name, given, turns) in enumerate(sides)
    ]
    for process in both:
        process.start()
    times = dict(found.get(timeout=1800) for _ in both)
    for process in both:
        process.join()
    one, other = (np.diff(times[side][BLOCK - 1 :: BLOCK]) for side in range(2))
    return [float(each) for each in other / one]


def measure(
    methods: Sequence[str], settings: Mapping[str, Any], pixels: np.ndarray, blocks: int
) -> None:
    """Append the pace of each method to the table."""
    commit, is_clean = checkout()
    for method in methods:
        ratios = ratios_of(method, settings, pixels, blocks)
        row = {
            "date": time.strftime("%Y-%m-%d"),
            "commit": commit if is_clean else f"{commit}+changes",
            "method": method,
            "settings": json.dumps(settings, sort_keys=True),
            "blocks": blocks,
            "pace": round(statistics.median(ratios), 3),
            "least": round(min(ratios), 3),
            "most": round(max(ratios), 3),
            "device": device(),
        }
        print(row, flush=True)
        append(TABLE, row, COLUMNS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", default="shapes", metavar="NAME[=FOLDER]")
    parser.add_argument("--methods", nargs="+", default=COMPARED, choices=COMPARED)
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE")
    parser.add_argument("--blocks", type=int, default=3, help=f"of {BLOCK} steps")
    parser.add_argument("--core", type=int, default=0)
    chosen = parser.parse_args()
    use_cores([chosen.core])
    parts = load_dev(*data_set(chosen.images))
    pixels = np.asarray(parts.train.pixels).transpose(0, 2, 3, 1)
    measure(chosen.methods, given_settings(chosen), pixels, chosen.blocks)


if __name__ == "__main__":
    main()
