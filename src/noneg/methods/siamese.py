"""The bare siamese network: two views should embed alike, and nothing else. The negative control.

Nothing keeps it from collapsing: a constant embedding has loss 0, and that is where it goes.
It is here to be compared with, and to show what a collapsed run looks like.
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from noneg.losses import mean_squared_error
from noneg.methods.base import Embeddings, Method, Recipe, Step


@dataclass(frozen=True)
class Options:
    """None: the loss lies on the representation itself, without a projector."""


RECIPES = {"paper": Recipe(options=Options()), "small": Recipe(options=Options())}


@final
class Siamese(Method):
    """Mean squared error between views."""

    def __init__(self, backbone: nn.Module, width: int, options: Options) -> None:
        """Nothing is added to the backbone."""
        super().__init__(backbone)

    def embed(self, views: tuple[Tensor, ...]) -> Embeddings:
        """The representation of each view, which is its projection too."""
        h = torch.stack([self.backbone(view) for view in views])
        return Embeddings(h=h, z=h)

    def objective(self, e: Embeddings) -> Step:
        """Agreement alone."""
        loss = mean_squared_error(e.z)
        return Step(loss, {"invariance": loss})

    def after_step(self, progress: float) -> None:
        """Nothing moves."""
