"""How long a step of each method takes, in steps of VICReg: with its small recipe, in CPU time.

    python benchmarks/methods_pace.py --images cifar10=CIFAR10 --core 0
    python benchmarks/methods_pace.py --images cifar10=CIFAR10 --methods mmcr --set views=gentle

A short run of VICReg and one of the method alternate in one process, on one core. A ratio of two
that are measured within seconds depends little on the machine and on what else it does; methods.py
gives each method its number of steps by it.
"""

import argparse
import csv
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from budget import TIMED_STEPS, WARM_UP, Budget, use_cores
from noneg.methods import find_method, list_methods
from speedrun import data_set, device, given_settings, read_rows
from speedrun_data import checkout, load_dev
from speedrun_entry import Job, Ticks, train_steps

TABLE = Path(__file__).parent / "results/methods_pace.csv"
COLUMNS = ("date", "commit", "method", "settings", "rounds", "pace", "least", "most")
REFERENCE = "vicreg"
LEFT_OUT = ("distill", "i_jepa")
"""One learns from another network, one takes transformers alone."""


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


def seconds_of(method: str, settings: Mapping[str, Any], pixels: np.ndarray) -> float:
    """CPU time of a step, the mean over a short run: some methods do more at some steps."""
    batch_size = settings.get("batch_size") or find_method(method).recipe("small").batch_size
    ticks = Ticks(Budget(0.0))
    job = Job([method], {**settings, "method": method}, "", 0, [], 0, "")
    with tempfile.TemporaryDirectory() as folder:
        few = pixels[: batch_size * TIMED_STEPS]
        train_steps(job, few, TIMED_STEPS, [ticks], Path(folder) / "timed")
    timed = ticks.times[WARM_UP - 1 :]
    return (timed[-1] - timed[0]) / (len(timed) - 1)


def measure(
    methods: Sequence[str], settings: Mapping[str, Any], pixels: np.ndarray, rounds: int
) -> None:
    """Append the ratio of each method's step to one of VICReg, which is timed right before it."""
    commit, is_clean = checkout()
    for method in methods:
        ratios = []
        for _ in range(rounds):
            one = seconds_of(REFERENCE, {}, pixels)
            ratios.append(seconds_of(method, settings, pixels) / one)
        row = {
            "date": time.strftime("%Y-%m-%d"),
            "commit": commit if is_clean else f"{commit}+changes",
            "method": method,
            "settings": json.dumps(settings, sort_keys=True),
            "rounds": rounds,
            "pace": round(statistics.median(ratios), 3),
            "least": round(min(ratios), 3),
            "most": round(max(ratios), 3),
        }
        print(row, flush=True)
        _append(row)


def _append(row: Mapping[str, Any]) -> None:
    is_new = not TABLE.exists()
    with TABLE.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = [name for name in list_methods() if name not in LEFT_OUT]
    parser.add_argument("--images", default="shapes", metavar="NAME[=FOLDER]")
    parser.add_argument("--methods", nargs="+", default=known, choices=known)
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--core", type=int, default=0)
    chosen = parser.parse_args()
    use_cores([chosen.core])
    import torch

    torch.set_num_threads(1)
    print(device())
    parts = load_dev(*data_set(chosen.images))
    pixels = np.asarray(parts.train.pixels).transpose(0, 2, 3, 1)
    measure(chosen.methods, given_settings(chosen), pixels, chosen.rounds)


if __name__ == "__main__":
    main()
