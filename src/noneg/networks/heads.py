"""Projectors and predictors: all are built by `mlp`."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import nn


def mlp(
    widths: Sequence[int],
    *,
    output: Literal["linear", "norm", "plain_norm"] = "linear",
    bias: bool = True,
    hidden_norm: bool = True,
) -> nn.Sequential:
    """Linear layers with BatchNorm and ReLU between them.

    Args:
        widths: of input, hidden layers and output. Two widths give a single linear layer.
        output: what follows the last linear layer: "linear" nothing, "norm" BatchNorm,
            "plain_norm" BatchNorm without scale and shift (SimSiam's projector).
        bias: whether the last linear layer has a bias, if no norm follows. Before a norm, a bias
            has no effect, so there is none.
        hidden_norm: whether BatchNorm follows the hidden layers (not in MoCo's projector).

    Returns:
        A module, float [batch, widths[0]] -> [batch, widths[-1]].
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths[:-1]):
        norm = [nn.BatchNorm1d(outputs)] if hidden_norm else []
        layers += [nn.Linear(inputs, outputs, bias=not hidden_norm), *norm, nn.ReLU()]
    layers.append(nn.Linear(widths[-2], widths[-1], bias=bias and output == "linear"))
    if output != "linear":
        layers.append(nn.BatchNorm1d(widths[-1], affine=output == "norm"))
    return nn.Sequential(*layers)
