"""The network that follows the trained one by a moving average, and gets no gradient."""

import copy

import torch
from torch import nn

from noneg.networks.norms import batch_norms


def copy_as_target(*parts: nn.Module) -> nn.Sequential:
    """A copy of the parts, one after the other, that neither gradients nor its own batches move."""
    target = copy.deepcopy(nn.Sequential(*parts))
    target.requires_grad_(False)
    for norm in batch_norms(target):
        # Its running statistics follow the online network's, as its weights do.
        norm.momentum = 0.0
    return target


@torch.no_grad()
def move_target(target: nn.Sequential, *parts: nn.Module, keep: float) -> None:
    """Move a target towards its parts, parameters and buffers alike; it keeps so much of its own.

    Args:
        target: from `copy_as_target`.
        parts: what it was copied from.
        keep: share of the target that stays, 0 to 1.
    """
    online = nn.Sequential(*parts).state_dict()
    for name, value in target.state_dict().items():
        if value.is_floating_point():
            value.lerp_(online[name], 1 - keep)
        else:
            value.copy_(online[name])
