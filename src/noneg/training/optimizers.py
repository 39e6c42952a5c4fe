"""Parameter groups, optimizers, and the learning rate at each step."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from timm.optim.lars import Lars
from torch import Tensor, nn
from torch.optim import Optimizer

from noneg.methods.base import Method, Rate
from noneg.networks.layers import layer_numbers
from noneg.training.config import TrainConfig
from noneg.training.muon import Muon

LARC_COEFFICIENT = 0.02
"""LARC's longest step for a layer, as a share of the length of its weights (solo-learn's)."""


def parameter_groups(method: Method, config: TrainConfig, batch_size: int) -> list[dict[str, Any]]:
    """One group for weights, with weight decay, and one for biases and norms, for each rate.

    If backbone and heads learn differently, the backbone's groups have `"backbone": True`; with
    `layer_decay`, each of its layers has its own. Otherwise they share groups, as in checkpoints of
    earlier versions.

    Muon has one more, for the convolutions of the backbone. The projector's matrices are larger
    than all of these together, and orthogonalizing them would double the time of a step.
    """
    groups: dict[tuple[bool, bool, bool, float, Rate], list[nn.Parameter]] = {}
    layers = layer_numbers(method.backbone) if config.layer_decay != 1 else {}
    last = max(layers.values(), default=0)
    differ = (config.heads_first, config.backbone_rate, config.layer_decay) != (0, 1, 1)
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            part, _, rest = name.partition(".")
            is_backbone = part == "backbone"
            share = 1.0
            if is_backbone:
                share = config.backbone_rate * config.layer_decay ** (last - layers.get(rest, last))
            rate = method.rates.get(part, Rate())
            # One input channel per output (depthwise): the rows are no matrix of directions.
            orthogonal = (
                config.optimizer == "muon"
                and is_backbone
                and parameter.ndim == 4
                and parameter.shape[1] > 1
            )
            key = parameter.ndim > 1, orthogonal, is_backbone and differ, share, rate
            groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": config.weight_decay if is_weight else 0.0,
            "full_rate": config.learning_rate
            * batch_size
            / 256
            * rate.multiplier
            * share
            * (1.0 if is_weight else config.bias_rate),
            "constant": rate.constant,
            "backbone": apart,
            **({"orthogonal": orthogonal} if config.optimizer == "muon" else {}),
        }
        for (is_weight, orthogonal, apart, share, rate), parameters in groups.items()
    ]


def build_optimizer(method: Method, config: TrainConfig, batch_size: int) -> Optimizer:
    """The config's optimizer over the method's parameter groups."""
    groups = parameter_groups(method, config, batch_size)
    rate = config.learning_rate
    # Fused SGD does not support sharded weights.
    fused = config.strategy != "fsdp"
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, fused=fused)
    if config.optimizer == "muon":
        return Muon(groups, rate, fused=fused)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=0.9, fused=fused)
    # timm's LARS only adapts groups with weight decay: biases and norms take plain momentum steps.
    if config.optimizer == "larc":
        return Lars(groups, lr=rate, momentum=0.9, trust_coeff=LARC_COEFFICIENT, trust_clip=True)
    return Lars(groups, lr=rate, momentum=0.9)


def anchors_of(backbone: nn.Module) -> dict[nn.Parameter, Tensor]:
    """Copies of the weights that are trained now, for `pull_back`."""
    return {each: each.detach().clone() for each in backbone.parameters() if each.requires_grad}


@torch.no_grad()
def pull_back(optimizer: Optimizer, anchors: Mapping[nn.Parameter, Tensor], pull: float) -> None:
    """Move each weight towards its anchor, by its learning rate times `pull` of the way."""
    if not anchors:
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter in anchors:
                parameter.lerp_(anchors[parameter], min(1.0, group["lr"] * pull))


def rate_share(step: int, total_steps: int, warmup_steps: int) -> float:
    """The share of the full learning rate at a step: linear warm-up, then a cosine down to zero."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return (1 + math.cos(math.pi * progress)) / 2


def set_learning_rates(
    optimizer: Optimizer, share: float, factor: float = 1.0, backbone_share: float | None = None
) -> None:
    """Set the rate of each group for this step.

    Args:
        optimizer: with groups of `parameter_groups`.
        share: of the full rate, for groups without a constant rate.
        factor: for all groups.
        backbone_share: instead of `share` for the backbone's groups, if it is another one.
    """
    for group in optimizer.param_groups:
        own = share if backbone_share is None or not group.get("backbone") else backbone_share
        group["lr"] = group["full_rate"] * factor * (1.0 if group["constant"] else own)
