"""BatchNorm when a batch is split over chunks or processes.

The setting `--norm` of a run, for the backbone and the heads:

    batch    BatchNorm as the network has it. Its statistics are those of all processes' images; in
             chunks (`--chunk-size`), those of one chunk.
    group    GroupNorm instead (Wu and He 2018, arXiv 1803.08494): no batch statistics.
    frozen   BatchNorm with statistics that are measured once, before the first step.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import gcd

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

_CHANNELS_PER_GROUP = 16


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """All BatchNorm layers of a module, of any number of dimensions, synchronized or not."""
    return [each for each in module.modules() if isinstance(each, _BatchNorm)]


def use_group_norm(module: nn.Module) -> None:
    """Replace every BatchNorm by a GroupNorm with the same scale and shift parameters.

    A group has 16 channels, or the next larger number that divides the channels evenly.
    """
    for name, norm in list(module.named_modules(remove_duplicate=False)):
        if isinstance(norm, _BatchNorm):
            module.set_submodule(name, _group_norm(norm))


def _group_norm(norm: _BatchNorm) -> nn.Module:
    channels = norm.num_features
    groups = gcd(channels, max(1, channels // _CHANNELS_PER_GROUP))
    group_norm = nn.GroupNorm(groups, channels, norm.eps, norm.affine)
    group_norm.weight, group_norm.bias = norm.weight, norm.bias
    # timm's BatchNormAct2d ends with an activation.
    return nn.Sequential(group_norm, *norm.children()) if list(norm.children()) else group_norm


def freeze_statistics(module: nn.Module) -> None:
    """BatchNorm uses its running statistics and does not change them, until `.train()`."""
    for norm in batch_norms(module):
        # Not norm.eval(), which would also change the modules that timm puts inside.
        norm.training = False


@torch.no_grad()
def measure_statistics(module: nn.Module, forward: Callable[[], object]) -> None:
    """Set running statistics to the mean of those of the batches that `forward` passes.

    Layers that have statistics already, from known weights, keep and use them.
    """
    norms = [norm for norm in batch_norms(module) if not _has_statistics(norm)]
    kept = [norm for norm in batch_norms(module) if _has_statistics(norm)]
    modes = [norm.training for norm in kept]
    for norm in kept:
        norm.training = False
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        # None averages over the batches.
        norm.momentum = None
    try:
        forward()
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for norm, mode in zip(kept, modes, strict=True):
            norm.training = mode


def _has_statistics(norm: _BatchNorm) -> bool:
    """Whether they are not those of a new layer: mean 0 and variance 1."""
    mean, variance = norm.running_mean, norm.running_var
    return mean is not None and variance is not None and bool(mean.any() or (variance != 1).any())


@contextmanager
def statistics_move_once_in(module: nn.Module, passes: int) -> Iterator[None]:
    """Running statistics move as far in `passes` passes as otherwise in one, towards their mean."""
    norms = [norm for norm in batch_norms(module) if norm.momentum is not None]
    momenta = [norm.momentum for norm in norms]
    for norm, momentum in zip(norms, momenta, strict=True):
        assert momentum is not None
        norm.momentum = 1 - (1 - momentum) ** (1 / passes)
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


@contextmanager
def statistics_stay(module: nn.Module) -> Iterator[None]:
    """Batches are normalized by their own statistics, and running statistics do not change."""
    norms = [norm for norm in batch_norms(module) if norm.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


@torch.no_grad()
def copy_statistics(source: nn.Module, target: nn.Module) -> None:
    """Give every BatchNorm of `target` the running statistics of its twin in `source`."""
    for one, other in zip(batch_norms(source), batch_norms(target), strict=True):
        for name, buffer in other.named_buffers(recurse=False):
            buffer.copy_(one.get_buffer(name))
