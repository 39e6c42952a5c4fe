"""The share of a run's time that the label-free meters take.

Runs of the default network on the built-in images, with a clock around all work of the meters. It
counts CPU time, because machines are shared.

    python benchmarks/meters.py    about five minutes on one core
"""

import argparse
import csv
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import noneg
from noneg.images.shapes import draw_shapes
from noneg.training.metering import Metering

SPENT: dict[str, list[float]] = {"see": [], "quick": [], "full": [], "spectra": []}
STARTED: list[float] = []


def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        began = time.process_time()
        if not STARTED:
            STARTED.append(began)
        result = function(*arguments)
        SPENT[name].append(time.process_time() - began)
        return result

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/meters.csv"))
    chosen = parser.parse_args()
    for name in SPENT:
        setattr(Metering, name, timed(name, getattr(Metering, name)))
    pixels = draw_shapes(4_000, seed=0).pixels.transpose(0, 2, 3, 1).copy()
    rows = []
    for batch_size in (64, 128, 256):
        STARTED.clear()
        for calls in SPENT.values():
            calls.clear()
        with tempfile.TemporaryDirectory() as folder:
            noneg.train(
                pixels,
                batch_size=batch_size,
                epochs=chosen.epochs,
                evaluate=False,
                report=False,
                out=str(Path(folder) / "run"),
            )
        total = time.process_time() - STARTED[0]
        # `full` calls `quick`, whose time would count twice.
        meters = sum(sum(SPENT[name]) for name in ("see", "quick", "full", "spectra"))
        meters -= sum(SPENT["quick"][0:1]) * len(SPENT["full"])
        steps = len(SPENT["see"])
        rows.append(
            {
                "batch_size": batch_size,
                "steps": steps,
                "rows": len(SPENT["quick"]),
                "full_rows": len(SPENT["full"]),
                "seconds": f"{total:.1f}",
                "meter_seconds": f"{meters:.2f}",
                "share": f"{meters / total:.4f}",
                "threads": torch.get_num_threads(),
            }
        )
        print(rows[-1], flush=True)
    with chosen.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
