"""Time and memory of noneg's losses, forward and backward, against others.

The others are lightly's losses (pip install lightly==1.6.0) and a plain transcription of the
formulas with their width x width matrices. A call computes the loss of given float32 embeddings of
two views, and its gradient with respect to them. SIGReg is in closed form here, and the others
sample 1,024 directions. Each side takes them in its own form: one tensor,
or one per view. The sides take turns in one process, and medians are printed. With one thread, the
time is CPU time, which on an idle machine is wall time.

Peak memory is that of one more call: the most bytes that PyTorch's allocator has given out at a
time since the call began, according to its profiler. It includes the gradient, not the embeddings.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python benchmarks/losses.py
    python benchmarks/losses.py --quick            under two minutes: only against lightly, whose
                                                   slow calls are timed once
    python benchmarks/losses.py --losses vicreg --batches 64 --widths 256 2048
                                                   these cells; the others stay in the table
    python benchmarks/losses.py --losses sigreg frossl --batches 64 256 --widths 64 1024
"""

import argparse
import csv
import json
import statistics
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from itertools import product
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import mse_loss, normalize
from torch.profiler import profile

from noneg.losses import barlow_twins, frossl, sigreg, vicreg
from peers import require

COLUMNS = ["loss", "batch", "width", "side", "threads", "round", "seconds", "peak_bytes"]
# Seconds per call above which --quick makes one call, and above which a full run makes three.
SLOW, VERY_SLOW = 1.0, 20.0
FEWEST = 5

Call = Callable[[Tensor, Tensor], Tensor]


def plain_vicreg(a: Tensor, b: Tensor) -> Tensor:
    """The authors' formula, term by term."""
    loss = 25 * mse_loss(a, b)
    for z in (a, b):
        centered = z - z.mean(dim=0)
        covariance = centered.T @ centered / (len(z) - 1)
        hinge = torch.relu(1 - torch.sqrt(covariance.diagonal() + 1e-4)).mean()
        off_diagonal = covariance.square().sum() - covariance.diagonal().square().sum()
        loss = loss + 25 * hinge / 2 + off_diagonal / z.shape[1]
    return loss


def plain_barlow_twins(a: Tensor, b: Tensor) -> Tensor:
    """The paper's formula, term by term, with BatchNorm's epsilon."""
    standard = [(z - z.mean(dim=0)) / torch.sqrt(z.var(dim=0, correction=0) + 1e-5) for z in (a, b)]
    correlation = standard[0].T @ standard[1] / len(a)
    on_diagonal = (1 - correlation.diagonal()).square().sum()
    off_diagonal = correlation.square().sum() - correlation.diagonal().square().sum()
    return on_diagonal + 5e-3 * off_diagonal


def plain_frossl(a: Tensor, b: Tensor) -> Tensor:
    """The authors' formula, with width x width matrices."""
    columns = [normalize(z, dim=0) for z in (a, b)]
    mean = (columns[0] + columns[1]) / 2
    loss = a.new_zeros(())
    for z in columns:
        matrix = z.T @ z
        loss = loss + matrix.square().sum().log() - 2 * matrix.trace().log()
        loss = loss + 2 * a.shape[1] * (z - mean).square().mean()
    return loss


def plain_sigreg(a: Tensor, b: Tensor) -> Tensor:
    """The authors' formula, with 1,024 directions and 17 knots, without their factor n."""
    t = torch.linspace(0, 3, 17)
    gaussian = torch.exp(-t.square() / 2)
    weights = gaussian * torch.tensor([1.0, *[2.0] * 15, 1.0]) * t[1]
    turned = (torch.stack([a, b]) @ normalize(torch.randn(a.shape[1], 1024), dim=0))[..., None] * t
    off = (turned.cos().mean(dim=1) - gaussian).square() + turned.sin().mean(dim=1).square()
    return (off @ weights).mean()


@cache
def lightly_losses() -> dict[str, Call]:
    from lightly.loss import BarlowTwinsLoss, FroSSLLoss, SIGReg, VICRegLoss

    statistic, many_views = SIGReg(), FroSSLLoss()
    return {
        "vicreg": VICRegLoss(),
        "barlow_twins": BarlowTwinsLoss(),
        "frossl": lambda a, b: many_views([a, b]),
        "sigreg": lambda a, b: statistic(torch.stack([a, b])) / len(a),
    }


PLAIN: dict[str, Call] = {
    "vicreg": plain_vicreg,
    "barlow_twins": plain_barlow_twins,
    "frossl": plain_frossl,
    "sigreg": plain_sigreg,
}
NONEG = {
    "vicreg": vicreg,
    "barlow_twins": barlow_twins,
    "frossl": frossl,
    "sigreg": lambda z: {"sigreg": sigreg(z)},
}
# Relative differences between the sides: sampled directions have noise, and knots end at 3.
TOLERANCE = {"sigreg": 0.1}


def step(side: str, loss: str, z: Tensor) -> tuple[float, float]:
    """Seconds of one forward and backward pass, and the loss, which all sides must agree on."""
    leaves = [z.clone().requires_grad_()] if side == "noneg" else [v.clone() for v in z]
    for leaf in leaves:
        leaf.requires_grad_()
    # With one thread, CPU time leaves out other programs on the machine.
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    started = clock()
    if side == "noneg":
        value = sum(NONEG[loss](leaves[0]).values(), torch.zeros(()))
    else:
        value = (lightly_losses() if side == "lightly" else PLAIN)[loss](*leaves)
    value.backward()
    return clock() - started, float(value.detach())


def peak_bytes(side: str, loss: str, z: Tensor) -> int:
    """The most memory that one pass holds at a time, without the embeddings."""
    with profile(profile_memory=True) as record:
        step(side, loss, z)
    allocations = [
        event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"
    ]
    held = peak = 0
    for event in sorted(allocations, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    # The first allocations of the call are the copies of the embeddings.
    return peak - z.nbytes


def rounds_of(seconds: float, rounds: int, quick: bool) -> int:
    """How often a call is measured after the first one, which took this many seconds."""
    if not quick:
        return rounds if seconds < VERY_SLOW else min(rounds, 3)
    return 0 if seconds > SLOW else min(rounds, max(FEWEST, int(SLOW / seconds)))


def measure_cell(
    loss: str, batch: int, width: int, sides: list[str], rounds: int, quick: bool
) -> list[dict[str, str | int]]:
    """All rounds of all sides for one loss and size, as rows of the table."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, batch, width, generator=generator)
    z = image + 0.5 * torch.randn(2, batch, width, generator=generator)
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    first = {side: step(side, loss, z) for side in sides}
    values = [value for _, value in first.values()]
    allowed = TOLERANCE.get(loss, 1e-4) * max(map(abs, values))
    assert max(values) - min(values) < allowed, f"{loss} {batch} x {width}: {values}"
    for number in range(rounds):
        for side in sides[number % len(sides) :] + sides[: number % len(sides)]:
            if number < rounds_of(first[side][0], rounds, quick):
                seconds[side].append(step(side, loss, z)[0])
    for side, taken in seconds.items():
        # The only call is the first: its warm-up is small compared with its seconds.
        seconds[side] = taken or [first[side][0]]
    return [
        {
            "loss": loss,
            "batch": batch,
            "width": width,
            "side": side,
            "threads": torch.get_num_threads(),
            "round": number,
            "seconds": f"{value:.6f}",
            "peak_bytes": memory,
        }
        for side in sides
        for memory in [0 if quick else peak_bytes(side, loss, z)]
        for number, value in enumerate(seconds[side])
    ]


def write_rows(path: Path, rows: list[dict[str, str | int]]) -> None:
    """Write the rows into the table; they replace older rows of the same cells."""
    cells = {(str(row["loss"]), str(row["batch"]), str(row["width"])) for row in rows}
    kept: list[dict[str, str | int]] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            kept = [dict(r) for r in table if (r["loss"], r["batch"], r["width"]) not in cells]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*kept, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--losses", nargs="+", choices=NONEG, default=["vicreg", "barlow_twins"])
    parser.add_argument("--batches", nargs="+", type=int, default=[64, 256, 1024])
    parser.add_argument("--widths", nargs="+", type=int, default=[256, 2048, 8192])
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/losses.csv"))
    chosen = parser.parse_args()
    require("lightly")
    sides = ["noneg", "lightly"] if chosen.quick else ["noneg", "lightly", "plain"]
    print(
        f"torch {torch.__version__}, lightly {version('lightly')}, "
        f"{torch.get_num_threads()} threads",
        flush=True,
    )
    speedup: dict[str, float] = {}
    for loss, batch, width in product(chosen.losses, chosen.batches, chosen.widths):
        # A call of a millisecond needs many rounds for a steady median.
        rounds = chosen.rounds or (FEWEST if batch * width > 2**18 else 41)
        rows = measure_cell(loss, batch, width, sides, rounds, chosen.quick)
        if not chosen.quick:
            write_rows(chosen.out, rows)
        median = {
            side: statistics.median(float(row["seconds"]) for row in rows if row["side"] == side)
            for side in sides
        }
        memory = {str(row["side"]): int(row["peak_bytes"]) for row in rows}
        count = {side: sum(row["side"] == side for row in rows) for side in sides}
        parts = [
            f"{side} {1e3 * median[side]:.2f} ms (n = {count[side]})"
            + ("" if chosen.quick else f" {memory[side] / 2**20:.1f} MiB")
            for side in sides
        ]
        key = f"{loss}/{batch}/{width}"
        # Four digits, because a small slowdown shows in the third.
        speedup[key] = float(f"{median['lightly'] / median['noneg']:.4g}")
        print(f"{key}: {', '.join(parts)}, {speedup[key]:.2f} times lightly's speed", flush=True)
    print(json.dumps({"speedup": speedup}))


if __name__ == "__main__":
    main()
