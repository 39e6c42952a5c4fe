"""Barlow Twins: Self-Supervised Learning via Redundancy Reduction (Zbontar et al., 2103.03230).

What keeps it from collapsing: the correlation matrix between the two views' coordinates is pulled
to the identity. Its diagonal makes views agree, and forbids constant coordinates, which correlate
with nothing; the other entries forbid copies of a coordinate. No negatives, no predictor, no
stop-gradient.
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from noneg.losses import barlow_twins
from noneg.methods.base import Embeddings, Loss, Method
from noneg.methods.limits import check_options
from noneg.methods.recipe import Recipe
from noneg.methods.traits import Traits
from noneg.networks.heads import mlp

TRAITS = Traits(family="decorrelation")


@dataclass(frozen=True)
class Options:
    """Paper, section 2.2.

    Args:
        invariance: weight of the diagonal term; 1 in the paper.
        redundancy: weight lambda of the off-diagonal term.
        projector: widths of the projector's layers after the backbone.
    """

    invariance: float = 1.0
    redundancy: float = 5e-3
    projector: tuple[int, ...] = (8192, 8192, 8192)

    def __post_init__(self) -> None:
        check_options(self, counts=("projector",), weights=("invariance", "redundancy"))


RECIPES = {
    "paper": Recipe(
        options=Options(),
        epochs=1000,
        batch_size=2048,
        optimizer="lars",
        learning_rate=0.2,
        weight_decay=1.5e-6,
        bias_rate=0.0048 / 0.2,
        warmup_epochs=10.0,
        views="barlow_twins",
    ),
    "small": Recipe(
        options=Options(projector=(1024, 1024)),
        batch_size=64,
        optimizer="muon",
        learning_rate=1.6e-2,
        weight_decay=0.1,
    ),
}


@final
class BarlowTwins(Method):
    """The correlation matrix between views is pulled to the identity."""

    def __init__(self, backbone: nn.Module, width: int, options: Options) -> None:
        """Build the projector on a backbone of `width` features."""
        super().__init__(backbone)
        self.options = options
        self.projector = mlp((width, *options.projector), bias=False)

    def embed(self, views: tuple[Tensor, ...]) -> Embeddings:
        """Representation and projection of each view."""
        h = torch.stack([self.backbone(view) for view in views])
        return Embeddings(h=h, z=torch.stack([self.projector(each) for each in h]))

    def objective(self, e: Embeddings) -> Loss:
        """The diagonal and the off-diagonal term, on the whole batch."""
        terms = barlow_twins(
            e.z, invariance=self.options.invariance, redundancy=self.options.redundancy
        )
        return Loss(torch.stack(list(terms.values())).sum(), terms)
