"""The bare siamese network: two views should embed alike, and nothing else. The negative control.

Nothing keeps it from collapsing: a constant embedding has loss 0, and that is where it goes.
It is here to be compared with, and to show what a collapsed run looks like.
"""

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn

from noneg.losses import mean_squared_error
from noneg.methods.base import Embeddings, Loss, Method
from noneg.methods.recipe import Recipe
from noneg.networks.heads import mlp


@dataclass(frozen=True)
class Options:
    """By default the loss lies on the representation itself, without a head.

    Args:
        head: widths of a head's layers after the backbone, where the loss then lies.
        head_norm: where the head has BatchNorm: "none"; "hidden", between its layers; or "output",
            there and at its end, without scale and shift, as SimSiam's projector has.
    """

    head: tuple[int, ...] = ()
    head_norm: Literal["none", "hidden", "output"] = "none"


RECIPES = {"paper": Recipe(options=Options()), "small": Recipe(options=Options())}


@final
class Siamese(Method):
    """Mean squared error between views."""

    def __init__(self, backbone: nn.Module, width: int, options: Options) -> None:
        """Nothing is added to the backbone, unless a head was asked for."""
        super().__init__(backbone)
        self.head: nn.Module = nn.Identity()
        if options.head:
            self.head = mlp(
                (width, *options.head),
                output="plain_norm" if options.head_norm == "output" else "linear",
                hidden_norm=options.head_norm != "none",
            )

    def embed(self, views: tuple[Tensor, ...]) -> Embeddings:
        """The representation of each view, which without a head is its projection too."""
        h = torch.stack([self.backbone(view) for view in views])
        return Embeddings(h=h, z=torch.stack([self.head(each) for each in h]))

    def objective(self, e: Embeddings) -> Loss:
        """Agreement alone."""
        loss = mean_squared_error(e.z)
        return Loss(loss, {"invariance": loss})
