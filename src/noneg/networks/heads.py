"""Projectors and predictors: all of them are `mlp`."""

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
    """Linear layers, with BatchNorm and ReLU between them.

    Args:
        widths: input, hidden ..., output. Two widths are a single linear layer.
        output: what follows the last linear layer: nothing, BatchNorm, or BatchNorm without scale
            and shift (SimSiam's projector).
        bias: whether the last linear layer has a bias, where no norm follows. A bias before a
            norm would have no effect, so there is none.
        hidden_norm: False leaves BatchNorm out between the layers (MoCo's projector, ablations).

    Returns:
        A module that maps [batch, widths[0]] to [batch, widths[-1]].
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths[:-1]):
        norm = [nn.BatchNorm1d(outputs)] if hidden_norm else []
        layers += [nn.Linear(inputs, outputs, bias=not hidden_norm), *norm, nn.ReLU()]
    layers.append(nn.Linear(widths[-2], widths[-1], bias=bias and output == "linear"))
    if output != "linear":
        layers.append(nn.BatchNorm1d(widths[-1], affine=output == "norm"))
    return nn.Sequential(*layers)
