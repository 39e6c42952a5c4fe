"""Target networks: copies of the trained network that follow it by an exponential moving average.

They get no gradient.
"""

import copy

import torch
from torch import nn

from noneg.networks.norms import batch_norms


def copy_as_target(*parts: nn.Module) -> nn.Sequential:
    """A copy of the parts, applied one after the other.

    Neither gradients nor the statistics of its own batches change it; `update_target` does.
    """
    target = copy.deepcopy(nn.Sequential(*parts))
    target.requires_grad_(False)
    for norm in batch_norms(target):
        # The running statistics follow the online network's, like the weights.
        norm.momentum = 0.0
    return target


@torch.no_grad()
def update_target(target: nn.Sequential, *parts: nn.Module, decay: float) -> None:
    """Update a target's parameters and buffers: target <- decay * target + (1 - decay) * online.

    Buffers of integers are copied.

    Args:
        target: from `copy_as_target`.
        parts: the online network: the modules that the target was copied from.
        decay: in [0, 1]; 0 copies the online network, 1 leaves the target unchanged.
    """
    online = nn.Sequential(*parts).state_dict()
    for name, value in target.state_dict().items():
        if value.is_floating_point():
            value.lerp_(online[name], 1 - decay)
        else:
            value.copy_(online[name])
