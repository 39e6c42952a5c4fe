"""Errors of two gradients against the whole batch's: of gradient accumulation, and in chunks.

Gradient accumulation averages the gradients of the losses of the single chunks. In chunks
(GradCache), the loss is that of the whole batch. The relative error is the norm of the difference
over the norm of the whole batch's gradient; the cosine is that of the angle between them. Both are
measured untrained and after 20 steps on the whole batch, with small_resnet at 32 px and the heads
of the small recipes.

    python benchmarks/accumulation.py      about four minutes on one thread
"""

import argparse
import copy
import csv
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from noneg.methods import list_methods
from noneg.methods.base import Method
from noneg.networks import Norm
from noneg.training.build import build_method
from noneg.training.config import make_config
from noneg.training.plan import plan_of
from noneg.training.step import (
    Views,
    chunks_of,
    compute_gradient,
    compute_gradient_in_chunks,
)
from shapes_views import shapes_pixels, shapes_views

BATCH, CHUNK, STEPS = 256, 32, 20


def gradient(method: Method) -> Tensor:
    parts = [each.grad.flatten() for each in method.parameters() if each.grad is not None]
    method.zero_grad(set_to_none=True)
    return torch.cat(parts).double()


def accumulate(method: Method, views: Views, index: Tensor) -> None:
    parts = chunks_of(len(index), CHUNK)
    for part in parts:
        share = (part.stop - part.start) / len(index)
        compute_gradient(
            method,
            tuple(view[part] for view in views),
            index[part],
            lambda loss, share=share: (loss * share).backward(),
        )


def compare(name: str, norm: Norm) -> list[list[object]]:
    config = make_config(
        method=name, backbone="small_resnet", size=32, channels=3, batch_size=BATCH, norm=norm
    )
    plan = plan_of(config)
    method = build_method(plan)
    images = shapes_pixels(BATCH)
    index = torch.arange(BATCH)
    optimizer = torch.optim.AdamW(
        [each for each in method.parameters() if each.requires_grad], lr=1e-3
    )
    rows: list[list[object]] = []
    for step in range(STEPS + 1):
        views = shapes_views(images, index, plan, epoch=step)
        if step in (0, STEPS):
            whole, chunked, accumulated = (copy.deepcopy(method) for _ in range(3))
            compute_gradient(whole, views, index)
            exact = gradient(whole)
            compute_gradient_in_chunks(
                chunked, lambda part, v=views: tuple(view[part] for view in v), index, CHUNK
            )
            accumulate(accumulated, views, index)
            for way, each in (("chunks", chunked), ("accumulation", accumulated)):
                other = gradient(each)
                error = float((other - exact).norm() / exact.norm())
                cosine = float(cosine_similarity(other, exact, dim=0))
                rows.append([name, norm, way, step, f"{error:.1e}", f"{cosine:.4f}"])
                print(*rows[-1], flush=True)
        compute_gradient(method, views, index)
        optimizer.step()
        optimizer.zero_grad()
        method.after_step((step + 1) / STEPS)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/accumulation.csv"))
    chosen = parser.parse_args()
    norms: tuple[Norm, ...] = ("group", "batch")
    rows = [row for norm in norms for name in list_methods() for row in compare(name, norm)]
    with chosen.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "norm", "way", "step", "relative_error", "cosine"])
        writer.writerows(rows)


if __name__ == "__main__":
    main()
