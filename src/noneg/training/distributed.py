"""The seam between ranks: the only module that imports torch.distributed."""

from dataclasses import replace
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from noneg.methods.base import Embeddings


class _Gather(torch.autograd.Function):
    """Concatenate a dimension over all ranks; each rank's gradient is the sum over the ranks'.

    Every rank then computes the same loss on the whole batch. The sum makes each gradient as many
    times too large as there are ranks, which the averaging of data-parallel training undoes.
    """

    @staticmethod
    def forward(ctx: Any, local: Tensor, dimension: int) -> Tensor:
        ctx.dimension = dimension
        parts = [torch.empty_like(local) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, local.contiguous())
        return torch.cat(parts, dim=dimension)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        summed = gradients[0].contiguous()
        torch.distributed.all_reduce(summed)
        parts = summed.chunk(torch.distributed.get_world_size(), dim=ctx.dimension)
        return parts[torch.distributed.get_rank()], None


def gather(e: Embeddings) -> Embeddings:
    """The embeddings of all ranks' images, with gradients; the same object on a single process."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return e
    if torch.distributed.get_world_size() == 1:
        return e

    def whole(local: Tensor | None, dimension: int) -> Tensor | None:
        return None if local is None else _Gather.apply(local, dimension)

    h, z = whole(e.h, 1), whole(e.z, 1)
    assert h is not None
    assert z is not None
    return replace(e, h=h, z=z, p=whole(e.p, 1), t=whole(e.t, 1), index=whole(e.index, 0))
