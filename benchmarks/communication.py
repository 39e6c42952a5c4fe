"""Bytes that a training step sends: counted in gloo's calls, measured on the wire, and computed.

Two processes on this machine take steps of data-parallel training. The payload of each call is
counted by its purpose; the loopback device reports the bytes on the wire. Formulas, which are
checked against these counts, give the bytes for numbers of processes that one machine does not
have.

    python benchmarks/communication.py                            some minutes on two cores
    python benchmarks/communication.py --methods lejepa swav      these alone
"""

import argparse
import csv
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import torch.distributed
import torch.multiprocessing
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from methods_pace import COMPARED
from noneg.methods.base import Method
from noneg.networks.norms import batch_norms
from noneg.training.build import build_method
from noneg.training.config import make_config
from noneg.training.distributed import synchronize_statistics
from noneg.training.plan import Plan, plan_of
from noneg.training.step import Views, compute_gradient
from shapes_views import shapes_pixels, shapes_views

RANKS, BATCH, STEPS = 2, 64, 4


class OneStep(nn.Module):
    """The module that data-parallel training wraps: `forward` returns the loss of a step."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, views: tuple[Tensor, ...], index: Tensor) -> Tensor:
        losses: list[Tensor] = []
        compute_gradient(self.method, views, index, losses.append)
        return losses[0]


def small_plan(name: str) -> Plan:
    return plan_of(
        make_config(method=name, backbone="small_resnet", size=32, channels=3, batch_size=BATCH)
    )


def sent_on_loopback() -> int:
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == "lo":
            return int(numbers.split()[8])
    raise RuntimeError("no loopback device")


def one_rank(rank: int, port: int, methods: list[str], results: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=RANKS
    )
    payload: Counter[str] = Counter()
    all_gather, all_reduce = torch.distributed.all_gather, torch.distributed.all_reduce

    def counting_gather(parts: list[Tensor], local: Tensor, *more: Any, **others: Any) -> Any:
        payload["embeddings"] += local.nbytes
        return all_gather(parts, local, *more, **others)

    def counting_reduce(tensor: Tensor, *more: Any, **others: Any) -> Any:
        payload["statistics"] += tensor.nbytes
        return all_reduce(tensor, *more, **others)

    def counting_average(
        group: Any, bucket: torch.distributed.GradBucket
    ) -> torch.futures.Future[torch.Tensor]:
        payload["gradients"] += bucket.buffer().nbytes
        work = all_reduce(bucket.buffer().div_(RANKS), group=group, async_op=True)
        return work.get_future().then(lambda done: done.value()[0])

    torch.distributed.all_gather = counting_gather
    torch.distributed.all_reduce = counting_reduce
    rows = []
    for name in methods:
        plan = small_plan(name)
        method = build_method(plan)
        synchronize_statistics(method)
        network = DistributedDataParallel(OneStep(method), broadcast_buffers=False)
        network.register_comm_hook(None, counting_average)
        images = shapes_pixels(BATCH).chunk(RANKS)[rank]
        index = torch.arange(BATCH).chunk(RANKS)[rank]
        views = shapes_views(images, index, plan)
        network(views, index).backward()
        payload.clear()
        torch.distributed.barrier()
        before = sent_on_loopback()
        for _ in range(STEPS):
            network(views, index).backward()
        torch.distributed.barrier()
        wire = (sent_on_loopback() - before) / STEPS / RANKS
        rows.append([name, {kind: number // STEPS for kind, number in payload.items()}, wire])
    if rank == 0:
        torch.save(rows, results)
    torch.distributed.destroy_process_group()


@torch.no_grad()
def numbers_per_image(method: Method, views: Views) -> int:
    """How many numbers of an image's embeddings the processes exchange."""
    e = method.embed(views)
    found = (each for each in (e.h, e.z, e.p, e.t) if each is not None)
    return sum(each.shape[0] * each.shape[2] for each in found)


def numbers_of_statistics(method: Method, views: Views) -> int:
    """Mean and variance of each feature at each call of a BatchNorm, and again for its gradient."""
    numbers = 0

    def count(norm: nn.Module, _inputs: Any, output: Tensor) -> None:
        nonlocal numbers
        features = norm.num_features
        assert isinstance(features, int)
        numbers += 2 * features * (2 if output.requires_grad else 1)

    hooks = [each.register_forward_hook(count) for each in batch_norms(method)]
    method.embed(views)
    for hook in hooks:
        hook.remove()
    return numbers


def on_paper(method: Method, views: Views, batch: int, ranks: int) -> dict[str, float]:
    """Bytes that one rank sends per step, with ring algorithms.

    Embeddings: an all-gather of float32, ranks - 1 times the rank's own share, and nothing in the
    backward pass. BatchNorm and gradients: all-reduces. A ring sends 2 (ranks - 1) / ranks times
    the size of what it all-reduces.

    Args:
        method: with its network.
        views: of any two images, from which the numbers of an image are counted.
        batch: images per step, on all ranks together.
        ranks: number of processes.
    """
    share = batch // ranks * (4 * numbers_per_image(method, views) + 8)
    trained = sum(each.numel() for each in method.parameters() if each.requires_grad)
    around = 2 * (ranks - 1) / ranks
    return {
        "embeddings": (ranks - 1) * share,
        "statistics": around * 4 * numbers_of_statistics(method, views),
        "gradients": around * 4 * trained,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/communication.csv"))
    parser.add_argument("--methods", nargs="+", default=COMPARED, choices=COMPARED)
    chosen = parser.parse_args()
    out = chosen.out
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    results = out.with_suffix(".pt")
    torch.multiprocessing.spawn(one_rank, (port, chosen.methods, results), nprocs=RANKS)
    measured = torch.load(results, weights_only=True)
    results.unlink()
    rows: list[list[object]] = []
    for name, payload, wire in measured:
        plan = small_plan(name)
        views = shapes_views(shapes_pixels(2), torch.arange(2), plan)
        paper = on_paper(build_method(plan), views, BATCH, RANKS)
        for kind, sent in paper.items():
            row = [name, "small_resnet", BATCH, RANKS, kind, f"{sent:.0f}", payload[kind], ""]
            rows.append(row)
        total = sum(paper.values())
        rows.append([name, "small_resnet", BATCH, RANKS, "all", f"{total:.0f}", "", f"{wire:.0f}"])
    for name in chosen.methods:
        plan = plan_of(
            make_config(
                method=name,
                recipe="paper",
                backbone="resnet50",
                size=224,
                channels=3,
                batch_size=BATCH,
            )
        )
        method = build_method(plan)
        views = shapes_views(shapes_pixels(2), torch.arange(2), plan)
        for batch, ranks in ((4096, 64), (4096, 1024)):
            paper = on_paper(method, views, batch, ranks)
            for kind, sent in paper.items():
                rows.append([name, "resnet50", batch, ranks, kind, f"{sent:.0f}", "", ""])
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["method", "backbone", "batch", "ranks", "what", "paper", "counted", "on_the_wire"]
        )
        writer.writerows(rows)
    for row in rows:
        print(*row)


if __name__ == "__main__":
    main()
