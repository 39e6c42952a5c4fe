"""Peak memory and time of a training step by chunk size, at a fixed batch size.

Each point is measured in a process of its own, whose peak resident memory the system reports,
minus the memory of torch and the images before the first step. The views are drawn chunk by chunk,
as in a run. The time is the median over the steps without the first.

    python benchmarks/chunks.py            about ten minutes on one thread
    python benchmarks/chunks.py --quick    under two minutes
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from noneg.experiments.peak_memory import peak_resident
from noneg.training.build import build_method
from noneg.training.config import make_config
from noneg.training.plan import plan_of
from noneg.training.step import Views, compute_gradient, compute_gradient_in_chunks
from shapes_views import shapes_pixels, shapes_views

FIELDS = ("method", "norm", "batch", "chunk", "round", "seconds", "peak_mebibytes")


def one_point(method_name: str, norm: str, batch: int, chunk: int, steps: int) -> None:
    """Print seconds per step, and peak mebibytes above what was used before, of this process."""
    config = make_config(
        method=method_name,
        backbone="small_resnet",
        size=32,
        channels=3,
        batch_size=batch,
        norm=norm,
    )
    plan = plan_of(config)
    method = build_method(plan).to(memory_format=torch.channels_last)
    images = shapes_pixels(batch)
    index = torch.arange(batch)

    def draw(part: slice) -> Views:
        return shapes_views(images[part], index[part], plan)

    # The memory that libraries allocate at their first use is not counted.
    compute_gradient(method, draw(slice(0, 4)), index[:4])
    before = peak_resident()
    seconds = []
    for _ in range(steps + 1):
        method.zero_grad(set_to_none=True)
        started = time.perf_counter()
        if chunk < batch:
            compute_gradient_in_chunks(method, draw, index, chunk)
        else:
            compute_gradient(method, draw(slice(0, batch)), index)
        seconds.append(time.perf_counter() - started)
    print(statistics.median(seconds[1:]), peak_resident() - before)


def measure(method: str, norm: str, batch: int, chunk: int, steps: int) -> tuple[float, float]:
    point = [method, norm, str(batch), str(chunk), str(steps)]
    finished = subprocess.run(
        [sys.executable, __file__, "--point", *point], capture_output=True, text=True, check=True
    )
    seconds, peak = finished.stdout.split()[-2:]
    return float(seconds), float(peak)


def draw_chart(rows: list[dict[str, str | int | float]], out: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (memory, times) = plt.subplots(1, 2, figsize=(8.5, 3.6), layout="constrained")
    batch = int(rows[0]["batch"])
    for method, color in (("vicreg", "#1f6feb"), ("byol", "#bf5700")):
        chunks = sorted({int(row["chunk"]) for row in rows})
        points = [[r for r in rows if (r["method"], r["chunk"]) == (method, c)] for c in chunks]
        peaks = [statistics.median(float(r["peak_mebibytes"]) for r in p) for p in points]
        seconds = [statistics.median(float(r["seconds"]) for r in p) for p in points]
        memory.plot(chunks, peaks, "o-", color=color, label=method)
        times.plot(chunks, [each / seconds[-1] for each in seconds], "o-", color=color)
    memory.set_ylabel("peak memory per step, MiB")
    times.set_ylabel("time per step, whole batch = 1")
    for axes in (memory, times):
        axes.set_xscale("log", base=2)
        axes.set_xticks(chunks, [str(each) for each in chunks])
        axes.set_ylim(bottom=0)
        axes.set_xlabel(f"chunk size (batch {batch})")
        axes.spines[["top", "right"]].set_visible(False)
    memory.legend(frameon=False)
    figure.suptitle("small_resnet, 32 px, one CPU thread, float32", x=0.01, ha="left")
    figure.savefig(out, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--point", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--chart", type=Path, default=None)
    chosen = parser.parse_args()
    if chosen.point:
        method, norm, *numbers = chosen.point
        one_point(method, norm, *map(int, numbers))
        return
    batch = 512 if chosen.quick else 1024
    chunks = (64, 512) if chosen.quick else (32, 64, 128, 256, 512, 1024)
    methods = ("vicreg",) if chosen.quick else ("vicreg", "byol")
    rounds, steps = (chosen.rounds or 1, 1) if chosen.quick else (chosen.rounds or 3, 2)
    rows: list[dict[str, str | int | float]] = []
    for number in range(rounds):
        for method in methods:
            for chunk in chunks:
                seconds, peak = measure(method, "group", batch, chunk, steps)
                values = (method, "group", batch, chunk, number, round(seconds, 3), round(peak, 1))
                rows.append(dict(zip(FIELDS, values, strict=True)))
                print(f"{method} chunk {chunk}: {seconds:.2f} s, {peak:.0f} MiB", flush=True)
    # --quick does not overwrite the table of a full run.
    out = chosen.out or (None if chosen.quick else Path("benchmarks/results/chunks.csv"))
    if out is not None:
        with out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(rows)
    if not chosen.quick:
        draw_chart(rows, chosen.chart or Path("docs/chunks.png"))
    summary = {}
    for method in methods:
        for chunk in chunks:
            point = [row for row in rows if (row["method"], row["chunk"]) == (method, chunk)]
            summary[f"{method}/{batch}/{chunk}"] = {
                "peak_mebibytes": statistics.median(float(row["peak_mebibytes"]) for row in point),
                "seconds": statistics.median(float(row["seconds"]) for row in point),
            }
    print(json.dumps({"chunks": summary, "rounds": rounds, "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
