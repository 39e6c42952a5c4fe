"""Contrastive pairs: Learning an Invariant Mapping (Hadsell, Chopra and LeCun, CVPR 2006).

What keeps it from collapsing: negatives. Views of different images that are nearer than a margin
repel each other; a constant embedding costs the margin squared. Contrastive: for comparison.
What it costs: distances between all views, and batches that contain near images: those beyond the
margin have no gradient.
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from noneg.losses import contrastive
from noneg.methods.base import Embeddings, Loss, Method
from noneg.methods.limits import check_options
from noneg.methods.recipe import Recipe
from noneg.methods.traits import Traits
from noneg.networks.heads import mlp

TRAITS = Traits(family="contrastive")


@dataclass(frozen=True)
class Options:
    """Paper, section 2.1. Projector and recipe are SimCLR's, because the paper's data had labels.

    Args:
        margin: distance from which different images no longer repel each other.
        projector: widths of the projector's layers after the backbone.
    """

    margin: float = 1.0
    projector: tuple[int, ...] = (2048, 128)

    def __post_init__(self) -> None:
        check_options(self, counts=("projector",), positive=("margin",))


RECIPES = {
    "paper": Recipe(
        options=Options(),
        epochs=100,
        batch_size=4096,
        optimizer="lars",
        learning_rate=0.3,
        weight_decay=1e-6,
        warmup_epochs=10.0,
        views="simclr",
    ),
    # About the distance of different images at the start, so short runs need not shrink it first.
    "small": Recipe(
        options=Options(margin=5.0, projector=(1024, 128)),
        batch_size=64,
        optimizer="muon",
        learning_rate=1.6e-2,
    ),
}


@final
class Contrastive(Method):
    """Views of an image are pulled together, different images pushed apart."""

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
        """All pairs of the whole batch (paper, equation 4)."""
        terms = contrastive(e.z, margin=self.options.margin)
        return Loss(torch.stack(list(terms.values())).sum(), terms)
