"""Projectors and predictors: all are built by `mlp`."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize


def mlp(
    widths: Sequence[int],
    *,
    output: Literal["linear", "norm", "plain_norm"] = "linear",
    bias: bool = True,
    hidden_norm: bool = True,
    activation: Literal["relu", "gelu"] = "relu",
) -> nn.Sequential:
    """Linear layers with BatchNorm and ReLU between them.

    Args:
        widths: of input, hidden layers and output. Two widths give a single linear layer.
        output: what follows the last linear layer: "linear" nothing, "norm" BatchNorm,
            "plain_norm" BatchNorm without scale and shift (SimSiam's projector).
        bias: whether the last linear layer has a bias, if no norm follows. Before a norm, a bias
            has no effect, so there is none.
        hidden_norm: whether BatchNorm follows the hidden layers (not in MoCo's projector).
        activation: what follows the hidden layers ("gelu" in DINO's projector).

    Returns:
        A module, float [batch, widths[0]] -> [batch, widths[-1]].
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths[:-1]):
        norm = [nn.BatchNorm1d(outputs)] if hidden_norm else []
        act = nn.ReLU() if activation == "relu" else nn.GELU()
        layers += [nn.Linear(inputs, outputs, bias=not hidden_norm), *norm, act]
    layers.append(nn.Linear(widths[-2], widths[-1], bias=bias and output == "linear"))
    if output != "linear":
        layers.append(nn.BatchNorm1d(widths[-1], affine=output == "norm"))
    return nn.Sequential(*layers)


class Prototypes(nn.Module):
    """Cosines between embeddings and trained directions, the centers of clusters."""

    def __init__(self, width: int, count: int) -> None:
        """Random directions: `count` of them, for embeddings of `width`."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(count, width) / width**0.5)

    def forward(
        self, z: Float[Tensor, "batch width"], *, fixed: bool = False
    ) -> Float[Tensor, "batch count"]:
        """Cosines in [-1, 1]. If `fixed`, the prototypes get a gradient of 0.

        It is 0 and not None, because data-parallel training waits for every gradient.
        """
        weight = self.weight.detach() + 0 * self.weight if fixed else self.weight
        return normalize(z, dim=1) @ normalize(weight, dim=1).T
