"""Communication between processes: the only module that imports torch.distributed."""

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar, final

import torch
import torch.distributed
from jaxtyping import Float
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.functional import batch_norm
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from noneg.errors import NonegError
from noneg.methods.base import Embeddings

T = TypeVar("T")


def world_size() -> int:
    """How many processes train together."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 1
    return torch.distributed.get_world_size()


def rank() -> int:
    """The number of this process, from 0."""
    return torch.distributed.get_rank() if world_size() > 1 else 0


def is_first_process() -> bool:
    """Whether this is rank 0 or the only process: the one that writes files and prints.

    It is known before the processes connect, from variables of torchrun, SLURM or Lightning.
    """
    for name in ("RANK", "SLURM_PROCID"):
        if name in os.environ:
            return os.environ[name] == "0"
    return all(os.environ.get(name, "0") == "0" for name in ("NODE_RANK", "LOCAL_RANK"))


class _Gather(torch.autograd.Function):
    """Concatenate a dimension over all ranks, for a loss that is the same on every rank.

    For each rank's part, the gradient of the sum of the R ranks' losses is R times the gradient of
    its own loss, so nothing is sent. The averaging of data-parallel training divides by R again.
    """

    @staticmethod
    def forward(ctx: Any, local: Tensor, dimension: int) -> Tensor:
        ctx.dimension = dimension
        return torch.cat(_all_gather(local), dim=dimension)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        ranks = world_size()
        return gradients[0].chunk(ranks, dim=ctx.dimension)[rank()] * ranks, None


class _Sum(torch.autograd.Function):
    """Sum over all ranks; each rank uses the sum differently, so gradients are summed as well."""

    @staticmethod
    def forward(_ctx: Any, local: Tensor) -> Tensor:
        return _all_reduce(local)

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> Tensor:
        return _all_reduce(gradients[0])


def _all_reduce(local: Tensor) -> Tensor:
    total = local.clone(memory_format=torch.contiguous_format)
    torch.distributed.all_reduce(total)
    return total


def _all_gather(local: Tensor) -> list[Tensor]:
    parts = [local.new_empty(local.shape) for _ in range(world_size())]
    torch.distributed.all_gather(parts, local.contiguous())
    return parts


def gather(e: Embeddings) -> Embeddings:
    """The embeddings of all ranks' images, with gradients; the same object on a single process.

    All ranks must have the same number of images, and compute the same loss from the result.
    """
    if world_size() == 1:
        return e

    def whole(local: Tensor | None, dimension: int) -> Tensor | None:
        return None if local is None else _Gather.apply(local, dimension)

    h, z = whole(e.h, 1), whole(e.z, 1)
    assert h is not None
    assert z is not None
    return replace(e, h=h, z=z, p=whole(e.p, 1), t=whole(e.t, 1), index=whole(e.index, 0))


@final
class SynchronizedBatchNorm(_BatchNorm):
    """BatchNorm with the statistics of all ranks' images, on any device.

    torch's SyncBatchNorm does the same on GPUs, but refuses CPUs. All ranks must have the same
    number of images. The variance is computed about the mean of all ranks, to avoid cancellation.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        """Replace `norm`, with its parameters and buffers."""
        super().__init__(
            norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
        )
        for name, parameter in norm.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in norm.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        # timm's BatchNormAct2d ends with a dropout and an activation.
        self.after = nn.Sequential(*norm.children())
        self.train(norm.training)

    def forward(self, input: Float[Tensor, "batch features *_"]) -> Tensor:
        """Normalize each feature over all other dimensions; the shape stays."""
        if not self.training:
            normalized = batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
            return self.after(normalized)  # type: ignore[no-any-return]
        dimensions = [0, *range(2, input.ndim)]
        precise = input if input.dtype == torch.float64 else input.float()
        own_variance, own_mean = torch.var_mean(precise, dimensions, correction=0)
        mean = _Sum.apply(own_mean) / world_size()
        variance = _Sum.apply(own_variance + (own_mean - mean).square()) / world_size()
        self._move_statistics(mean.detach(), variance.detach(), input.numel() // input.shape[1])
        shape = (1, -1, *[1] * (input.ndim - 2))
        normalized = (precise - mean.view(shape)) * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normalized = normalized * self.weight.view(shape) + self.bias.view(shape)
        return self.after(normalized.to(input.dtype))  # type: ignore[no-any-return]

    def _move_statistics(self, mean: Tensor, variance: Tensor, local_count: int) -> None:
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        count = local_count * world_size()
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (count / (count - 1)), share)


def synchronize_statistics(module: nn.Module, *, on_gpus: bool = False) -> None:
    """Let every BatchNorm use the statistics of all ranks' images: torch's on GPUs, else ours."""
    if on_gpus:
        # timm's conversion, because torch's drops the activations in timm's BatchNorm.
        convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return
    for name, norm in list(module.named_modules(remove_duplicate=False)):
        if isinstance(norm, _BatchNorm) and not isinstance(norm, SynchronizedBatchNorm):
            module.set_submodule(name, SynchronizedBatchNorm(norm))


def shard(method: nn.Module) -> None:
    """Split weights, gradients and the optimizer's state over the processes: FSDP2.

    The parts of a method (backbone, projector ...) are sharded one by one, because the engine calls
    `embed` and not `forward`. Gradients are averaged as in data-parallel training.
    """
    for part in method.children():
        if next(part.parameters(), None) is not None:
            fully_shard(part)


def whole_tensor(tensor: Tensor) -> Tensor:
    """All of a tensor that is sharded over the processes; any other tensor as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def sharded_like(example: Tensor, tensor: Tensor) -> Tensor:
    """A tensor that all processes have, sharded as the example is."""
    if not isinstance(example, DTensor):
        return tensor
    return distribute_tensor(tensor, example.device_mesh, example.placements)


def whole_state(
    network: nn.Module, optimizer: Optimizer, *, is_sharded: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state of weights and optimizer; if sharded, all on the first process, else empty.

    All processes must call it.
    """
    if not is_sharded:
        return network.state_dict(), optimizer.state_dict()
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return get_state_dict(network, optimizer, options=options)


def load_whole_state(
    network: nn.Module,
    optimizer: Optimizer,
    weights: dict[str, Any],
    optimizer_state: dict[str, Any],
    *,
    is_sharded: bool,
) -> None:
    """Load what `whole_state` returned; every process passes all of it."""
    if not is_sharded:
        network.load_state_dict(weights)
        optimizer.load_state_dict(optimizer_state)
        return
    set_state_dict(
        network,
        optimizer,
        model_state_dict=weights,
        optim_state_dict=optimizer_state,
        options=StateDictOptions(full_state_dict=True),
    )


def on_any_process(is_so: bool, device: torch.device) -> bool:
    """Whether `is_so` holds on any process; all processes must call it."""
    if world_size() == 1:
        return is_so
    told = torch.tensor(float(is_so), device=device)
    torch.distributed.all_reduce(told)
    return bool(told > 0)


def from_first_process(make: Callable[[], T]) -> T:
    """Call `make` on the first process, and return its result on every process.

    The other processes wait for up to seven days.

    Raises:
        NonegError: on every process, if `make` raises it.
    """
    if world_size() == 1:
        return make()
    made: list[Any] = [None, None]
    if rank() == 0:
        try:
            made[0] = make()
        except NonegError as error:
            made[1] = error
    # A separate group, because the default timeout is half an hour, or ten minutes on GPUs.
    waiting = torch.distributed.new_group(backend="gloo", timeout=timedelta(days=7))
    assert isinstance(waiting, torch.distributed.ProcessGroup)
    torch.distributed.broadcast_object_list(made, src=0, group=waiting)
    torch.distributed.destroy_process_group(waiting)
    if made[1] is not None:
        made[1].is_reported = rank() > 0
        raise made[1]
    result: T = made[0]
    return result


def say(sentence: str) -> None:
    """Print a sentence, on the first process only."""
    if is_first_process():
        print(sentence, flush=True)
