"""Time and memory of noneg's losses, forward and backward, against others.

The others are lightly's losses (pip install lightly==1.6.0), where they agree with the paper
(docs/conventions.md), and a plain transcription of the formulas with their width x width matrices.
A call computes the loss of given float32 embeddings of two views, and its gradient with respect to
them; a queue or a moving average begins with this batch. SIGReg is in closed form here, and the
others sample 1,024 directions; SSL-HSIC has its exact kernel, and the other 512 random features.
W-MSE's width is at most half of the batch. Each side takes embeddings in its own form: one tensor,
or one per view. The sides take turns in one process, and medians are printed. With one thread, the
time is CPU time, which on an idle machine is wall time.

Peak memory is that of one more call: the most bytes that PyTorch's allocator has given out at a
time since the call began, according to its profiler. It includes the gradient, not the embeddings.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python benchmarks/losses.py
    python benchmarks/losses.py --quick            under two minutes: only against lightly, whose
                                                   slow calls are timed once
    python benchmarks/losses.py --losses vicreg --batches 64 --widths 256 2048
                                                   these cells; the others stay in the table
    python benchmarks/losses.py --losses sigreg frossl swav    batches of 64 and 256, and the widths
                                                   of the papers
"""

import argparse
import csv
import json
import math
import statistics
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from itertools import product
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, mse_loss, normalize
from torch.profiler import profile

from noneg.losses import (
    barlow_twins,
    corinfomax,
    dino,
    emp_ssl,
    frossl,
    hsic,
    mmcr,
    radial_divergence,
    running_covariance,
    second_moment,
    sigreg,
    simdino,
    sphere_discrepancy,
    swav,
    tico,
    vibcreg,
    vicreg,
    visreg,
    w_mse,
)
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


def coding_rate(z: Tensor, distortion: float) -> Tensor:
    """With the width x width matrix."""
    matrix = z.shape[1] / (len(z) * distortion) * z.T @ z
    return torch.logdet(torch.eye(z.shape[1]) + matrix) / 2


def plain_emp_ssl(a: Tensor, b: Tensor) -> Tensor:
    """The authors' formula, with width x width matrices."""
    unit = [normalize(z) for z in (a, b)]
    mean = (unit[0] + unit[1]) / 2
    cosines = [cosine_similarity(z, mean).mean() for z in unit]
    rates = [coding_rate(z, 0.2) for z in unit]
    return -100 * (cosines[0] + cosines[1]) - (rates[0] + rates[1]) / 2


def plain_simdino(a: Tensor, b: Tensor) -> Tensor:
    """The authors' formula on one process, with width x width matrices."""
    unit = [normalize(z) for z in (a, b)]
    target = [z.detach() for z in unit]
    cosines = [(unit[0] * target[1]).sum(dim=1).mean(), (unit[1] * target[0]).sum(dim=1).mean()]
    rates = [coding_rate((z + t) / 2, 0.4) for z, t in zip(unit, target, strict=True)]
    gamma = (len(a) + a.shape[1]) / (len(a) * a.shape[1])
    return -(cosines[0] + cosines[1]) / 2 - gamma * (rates[0] + rates[1]) / 2


def plain_mmcr(a: Tensor, b: Tensor) -> Tensor:
    """The authors' formula, by singular values."""
    return -torch.linalg.svdvals((normalize(a) + normalize(b)) / 2).sum()


def plain_vibcreg(a: Tensor, b: Tensor) -> Tensor:
    """solo-learn's formula, with width x width matrices."""
    loss = 25 * mse_loss(a, b)
    for z in (a, b):
        loss = loss + 25 * torch.relu(1 - torch.sqrt(z.var(dim=0) + 1e-4)).mean()
        columns = normalize(z - z.mean(dim=0), dim=0)
        correlation = columns.T @ columns
        loss = loss + 200 * (correlation - torch.diag(correlation.diagonal())).square().mean()
    return loss


def plain_sphere_discrepancy(a: Tensor, b: Tensor) -> Tensor:
    """The paper's kernel up to degree 2, with width x width matrices."""
    width = a.shape[1]
    loss = a.new_zeros(())
    for z in (a, b):
        unit = normalize(z)
        moment = unit.T @ unit / len(z)
        first = width * unit.mean(dim=0).square().sum()
        loss = loss + first + width * (width + 2) / 2 * (moment.square().sum() - 1 / width)
    return loss / 2 / (width + (width + 2) * (width - 1) / 2)


def plain_hsic(a: Tensor, b: Tensor) -> Tensor:
    """The authors' formula with 512 random features, without the constant of equal pairs.

    Frequencies of the inverse multiquadric are Gaussian, with a deviation that is itself the size
    of a Gaussian. The authors draw from a table of that distribution.
    """

    def features() -> list[Tensor]:
        frequencies = torch.randn(512).abs() * torch.randn(a.shape[1], 512)
        phases = 2 * math.pi * torch.rand(512)
        return [math.sqrt(2 / 512) * torch.cos(normalize(z) @ frequencies + phases) for z in (a, b)]

    (a1, b1), (a2, b2) = features(), features()
    together = a1 + b1
    mean = together.mean(dim=0) / 2
    on_image = together.square().sum() / (2 * len(a)) - mean.square().sum() - 1
    other = (a2 + b2).mean(dim=0) / 2
    cross = (a1 - mean).T @ (a2 - other) + (b1 - mean).T @ (b2 - other)
    return 3 * torch.sqrt(cross.square().sum() / (2 * len(a)) ** 2) - on_image


def corinfomax_first(z: Tensor) -> dict[str, Tensor]:
    """The first step of the method."""
    unit = normalize(z, dim=2)
    start = torch.zeros(z.shape[2]), torch.eye(z.shape[2])
    covariances = [running_covariance(view, *start, decay=0.01)[1] for view in unit]
    return corinfomax(unit, torch.stack(covariances), invariance=250.0)


def plain_corinfomax(a: Tensor, b: Tensor) -> Tensor:
    """The authors' formula: covariances in float64, and their determinants."""
    unit = [normalize(z) for z in (a, b)]
    identity = torch.eye(a.shape[1], dtype=torch.float64)
    loss = 250 * mse_loss(*unit)
    for z in unit:
        centered = z - 0.99 * z.double().mean(dim=0)
        covariance = 0.01 * identity + 0.99 * centered.T @ centered / len(z)
        logarithm = torch.linalg.slogdet(covariance + 1e-8 * identity).logabsdet
        loss = loss - logarithm.float() / a.shape[1]
    return loss


def plain_radial_divergence(a: Tensor, b: Tensor) -> Tensor:
    """The authors' two terms, and the constant."""
    batch, width = a.shape
    apart = round(math.sqrt(batch))
    loss = a.new_zeros(())
    for z in (a, b):
        radius = torch.norm(z, dim=1).clamp(min=1e-12)
        cross = (radius.square() / 2 - (width - 1) * radius.log()).mean()
        ascending, _ = radius.sort()
        spacing = (ascending[apart:] - ascending[:-apart]) * (batch + 1) / apart
        loss = loss + cross - torch.log(spacing + 1e-12).mean()
    return loss / 2 + (width / 2 - 1) * math.log(2) + math.lgamma(width / 2)


@cache
def lightly_losses() -> dict[str, Call]:
    """Those that agree with their papers: lightly's EMP-SSL and MMCR do not."""
    from lightly import loss
    from lightly.loss import lejepa_loss, visreg_loss

    statistic, many_views, moving, swapped = (
        loss.SIGReg(),
        loss.FroSSLLoss(),
        loss.TiCoLoss(),
        loss.SwaVLoss(),
    )

    def both_directions(a: Tensor, b: Tensor) -> Tensor:
        forth, back = moving(a, b.detach(), False), moving(b, a.detach(), False)
        return (forth + back) / 2

    def whitened(a: Tensor, b: Tensor) -> Tensor:
        return loss.WMSELoss(a.shape[1], w_size=len(a), num_samples=2)(torch.cat([a, b]))

    def gaussian(a: Tensor, b: Tensor) -> Tensor:
        z = torch.stack([a, b])
        shape = visreg_loss.visreg_shape_loss(z, num_slices=4096)
        rest = visreg_loss.visreg_scale_loss(z) + visreg_loss.visreg_center_loss(z)
        invariance = lejepa_loss.lejepa_invariance_loss(all_proj=z, global_proj=z)
        return 0.1 * invariance + 0.9 * (shape + rest)

    def distilled(a: Tensor, b: Tensor) -> Tensor:
        # A new one, because its center moves.
        criterion = loss.DINOLoss(output_dim=a.shape[1])
        return criterion([a.detach(), b.detach()], [a, b])

    return {
        "vicreg": loss.VICRegLoss(),
        "barlow_twins": loss.BarlowTwinsLoss(),
        "frossl": lambda a, b: many_views([a, b]),
        "sigreg": lambda a, b: statistic(torch.stack([a, b])) / len(a),
        "tico": both_directions,
        "w_mse": whitened,
        "visreg": gaussian,
        "swav": lambda a, b: swapped([a, b], []).sum(),
        "dino": distilled,
    }


PLAIN: dict[str, Call] = {
    "vicreg": plain_vicreg,
    "barlow_twins": plain_barlow_twins,
    "frossl": plain_frossl,
    "sigreg": plain_sigreg,
    "emp_ssl": plain_emp_ssl,
    "mmcr": plain_mmcr,
    "simdino": plain_simdino,
    "vibcreg": plain_vibcreg,
    "sphere_discrepancy": plain_sphere_discrepancy,
    "radial_divergence": plain_radial_divergence,
    "corinfomax": plain_corinfomax,
    "hsic": plain_hsic,
}
NONEG: dict[str, Callable[[Tensor], dict[str, Tensor]]] = {
    "vicreg": vicreg,
    "barlow_twins": barlow_twins,
    "frossl": frossl,
    "sigreg": lambda z: {"sigreg": sigreg(z)},
    "tico": lambda z: tico(z, z.detach(), 0.1 * second_moment(z.detach())),
    "w_mse": lambda z: w_mse(z, per_view=True),
    "visreg": visreg,
    "swav": lambda z: swav(z, z.detach()),
    "dino": lambda z: dino(z, z.detach(), z.new_zeros(z.shape[2])),
    "emp_ssl": emp_ssl,
    "mmcr": mmcr,
    "simdino": lambda z: simdino(z, z.detach()),
    "vibcreg": vibcreg,
    "sphere_discrepancy": lambda z: {"sphere": sphere_discrepancy(z)},
    "radial_divergence": lambda z: {"radial": radial_divergence(z)},
    "corinfomax": corinfomax_first,
    "hsic": lambda z: hsic(normalize(z, dim=2)),
}
GRID = {"batches": [64, 256, 1024], "widths": [256, 2048, 8192]}
# Widths of the papers' projections, or numbers of prototypes; Radial-VCReg's is VICReg's.
PAPER = {
    "frossl": 1024,
    "sigreg": 64,
    "tico": 256,
    "w_mse": 64,
    "visreg": 256,
    "swav": 3000,
    "dino": 65536,
    "emp_ssl": 1024,
    "mmcr": 512,
    "simdino": 256,
    "vibcreg": 4096,
    "sphere_discrepancy": 256,
    "radial_divergence": 8192,
    "corinfomax": 64,
    "hsic": 256,
}
# Relative differences between the sides: sampled directions and features have noise, SIGReg's knots
# end at 3, and noneg's TiCo has the matrix of both views.
TOLERANCE = {"sigreg": 0.1, "visreg": 0.1, "tico": 0.1, "hsic": 0.5}
# Cosines with prototypes: lightly's exp(score / 0.05) would overflow.
SPREAD = {"swav": 0.1}


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
    z *= SPREAD.get(loss, 1)
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


def cells(chosen: argparse.Namespace) -> list[tuple[str, int, int]]:
    """Losses with their batches and widths: those that were asked for, or the papers'."""
    asked = []
    for loss in chosen.losses:
        usual = GRID if loss not in PAPER else {"batches": [64, 256], "widths": [PAPER[loss]]}
        batches, widths = chosen.batches or usual["batches"], chosen.widths or usual["widths"]
        # lightly whitens at least twice as many images as there are coordinates.
        asked += [
            (loss, batch, min(width, batch // 2) if loss == "w_mse" else width)
            for batch, width in product(batches, widths)
        ]
    return asked


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
    parser.add_argument("--batches", nargs="+", type=int)
    parser.add_argument("--widths", nargs="+", type=int)
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/losses.csv"))
    chosen = parser.parse_args()
    require("lightly")
    print(
        f"torch {torch.__version__}, lightly {version('lightly')}, "
        f"{torch.get_num_threads()} threads",
        flush=True,
    )
    speedup: dict[str, float] = {}
    for loss, batch, width in cells(chosen):
        peers = {"lightly": lightly_losses(), "plain": PLAIN}
        others = [side for side, known in peers.items() if loss in known]
        sides = ["noneg", *(others[:1] if chosen.quick else others)]
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
        speedup[key] = float(f"{median[others[0]] / median['noneg']:.4g}")
        print(
            f"{key}: {', '.join(parts)}, {speedup[key]:.2f} times {others[0]}'s speed", flush=True
        )
    print(json.dumps({"speedup": speedup}))


if __name__ == "__main__":
    main()
