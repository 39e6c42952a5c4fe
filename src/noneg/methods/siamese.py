"""The bare siamese network: two views should have equal embeddings. The negative control.

Nothing keeps it from collapsing: a constant embedding has loss 0, and training finds it.
It is here for comparison, and to show what a collapsed run looks like.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn

from noneg.losses import mean_squared_error
from noneg.methods.base import Embeddings, Loss, Method
from noneg.methods.recipe import Recipe
from noneg.methods.traits import Traits
from noneg.networks.heads import mlp

TRAITS = Traits(family="control")


@dataclass(frozen=True)
class Options:
    """By default there is no head, and the loss is on the representation.

    Args:
        head: widths of a head's layers after the backbone; the loss is then on its output.
        head_norm: BatchNorm in the head: "none"; "hidden", between its layers; or "output", between
            its layers and, without scale and shift, at its end, as in SimSiam's projector.
    """

    head: tuple[int, ...] = ()
    head_norm: Literal["none", "hidden", "output"] = "none"


RECIPES = {"paper": Recipe(options=Options()), "small": Recipe(options=Options())}


def causes(state: str, options: Options, batch_size: int | None) -> Iterator[str]:
    """It is the control."""
    if state in ("complete collapse", "dimensional collapse", "projector only"):
        yield (
            "siamese is the control and has nothing that prevents collapse: choose another "
            "method, such as vicreg"
        )


@final
class Siamese(Method):
    """Mean squared error between views."""

    def __init__(self, backbone: nn.Module, width: int, options: Options) -> None:
        """Build the head, if `options` have one, on a backbone of `width` features."""
        super().__init__(backbone)
        self.head: nn.Module = nn.Identity()
        if options.head:
            self.head = mlp(
                (width, *options.head),
                output="plain_norm" if options.head_norm == "output" else "linear",
                hidden_norm=options.head_norm != "none",
            )

    def embed(self, views: tuple[Tensor, ...]) -> Embeddings:
        """The representation of each view; without a head, it is also the projection."""
        h = torch.stack([self.backbone(view) for view in views])
        return Embeddings(h=h, z=torch.stack([self.head(each) for each in h]))

    def objective(self, e: Embeddings) -> Loss:
        """The disagreement between views, and nothing else."""
        loss = mean_squared_error(e.z)
        return Loss(loss, {"invariance": loss})
