"""The seam between ranks: the only module that imports torch.distributed."""

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
    """This process's number among them, from 0."""
    return torch.distributed.get_rank() if world_size() > 1 else 0


def is_first_process() -> bool:
    """Whether this is rank 0 or on its own: the one that writes files and speaks.

    Known before the processes have met, from what torchrun, SLURM or Lightning told this one.
    """
    for name in ("RANK", "SLURM_PROCID"):
        if name in os.environ:
            return os.environ[name] == "0"
    return all(os.environ.get(name, "0") == "0" for name in ("NODE_RANK", "LOCAL_RANK"))


class _Gather(torch.autograd.Function):
    """Concatenate a dimension over all ranks, for a loss that every rank computes alike.

    The gradient of the sum of the ranks' losses is then, for each rank's part, as many times its
    own loss's gradient as there are ranks: nothing is sent. The averaging of data-parallel training
    divides by as many again.
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
    """Add up what all ranks have, for a use that differs: so does the gradient."""

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

    Every rank must have as many images, and compute the same loss from what it gets.
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
    """BatchNorm by the statistics of all ranks' images, on any device.

    torch's SyncBatchNorm does the same on GPUs, and refuses CPUs. Each rank must have as many
    images. The mean comes first and then the variance about it, so that nothing cancels.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        """Take the place of `norm`, with its own parameters and buffers."""
        super().__init__(
            norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
        )
        for name, parameter in norm.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in norm.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        # timm's BatchNormAct2d ends with these.
        self.after = nn.Sequential(*norm.children())
        self.train(norm.training)

    def forward(self, input: Float[Tensor, "batch features *_"]) -> Tensor:
        """The same shape, normalized for each feature over all else."""
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
    """Let every BatchNorm take the statistics of all ranks' images: torch's on GPUs, else ours."""
    if on_gpus:
        # timm's way to it, since torch's own loses the activations that timm's BatchNorm ends with.
        convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return
    for name, norm in list(module.named_modules(remove_duplicate=False)):
        if isinstance(norm, _BatchNorm) and not isinstance(norm, SynchronizedBatchNorm):
            module.set_submodule(name, SynchronizedBatchNorm(norm))


def shard(method: nn.Module) -> None:
    """Let each process keep its share of the weights, gradients and optimizer's state: FSDP2.

    The parts that a method calls (backbone, projector ...) are sharded one by one, since `embed`
    and not `forward` is what the engine calls. Averages gradients as data-parallel training does.
    """
    for part in method.children():
        if next(part.parameters(), None) is not None:
            fully_shard(part)


def whole_state(
    network: nn.Module, optimizer: Optimizer, *, is_sharded: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state of weights and optimizer; if sharded, whole on the first process, empty elsewhere.

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
    """Give back what `whole_state` took; every process has read all of it."""
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
    """Whether it is so on any process; all processes must ask."""
    if world_size() == 1:
        return is_so
    told = torch.tensor(float(is_so), device=device)
    torch.distributed.all_reduce(told)
    return bool(told > 0)


def from_first_process(make: Callable[[], T]) -> T:
    """What `make` returns on the first process, on every process; the others wait for days.

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
    # Of its own, since the usual patience is half an hour, or ten minutes on GPUs.
    patient = torch.distributed.new_group(backend="gloo", timeout=timedelta(days=7))
    assert isinstance(patient, torch.distributed.ProcessGroup)
    torch.distributed.broadcast_object_list(made, src=0, group=patient)
    torch.distributed.destroy_process_group(patient)
    if made[1] is not None:
        made[1].is_reported = rank() > 0
        raise made[1]
    result: T = made[0]
    return result


def say(sentence: str) -> None:
    """Print it once, whatever the number of processes."""
    if is_first_process():
        print(sentence, flush=True)
