"""MMCR: Maximum Manifold Capacity Representations (Yerxa et al., arXiv 2303.03307).

What keeps it from collapsing: the sum of the singular values of the matrix of centroids, the means
of each image's views on the sphere, is maximized. It is large if the centroids fill all directions,
and if they are long, so that views agree. No negatives, no predictor, no stop-gradient. Made for
many views; a batch as large as the projection is wide should be avoided (Schaeffer et al.,
2406.09366).
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from noneg.losses import mmcr
from noneg.methods.base import Embeddings, Loss, Method
from noneg.methods.limits import check_options
from noneg.methods.recipe import Recipe
from noneg.methods.traits import Traits
from noneg.networks.heads import mlp

TRAITS = Traits(family="decorrelation", more_views=True)


@dataclass(frozen=True)
class Options:
    """The authors' settings for CIFAR.

    Args:
        local: weight of the nuclear norm of each image's views; 0 in the authors' recipes.
        projector: widths of the projector's layers after the backbone.
    """

    local: float = 0.0
    projector: tuple[int, ...] = (512, 128)

    def __post_init__(self) -> None:
        check_options(self, counts=("projector",), weights=("local",))


RECIPES = {
    # The authors have a rate of 1e-3 at a batch of 32.
    "paper": Recipe(
        options=Options(),
        epochs=500,
        batch_size=32,
        optimizer="adamw",
        learning_rate=8e-3,
        weight_decay=1e-6,
        warmup_epochs=0.0,
        views="simclr",
        num_views=40,
    ),
    # Not tuned: VICReg's settings.
    "small": Recipe(
        options=Options(projector=(1024, 128)),
        batch_size=64,
        optimizer="muon",
        learning_rate=1.6e-2,
        num_views=4,
    ),
}


@final
class MMCR(Method):
    """The nuclear norm of the centroids is maximized."""

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
        """The nuclear norms, on the whole batch."""
        terms = mmcr(e.z, local=self.options.local)
        return Loss(torch.stack(list(terms.values())).sum(), terms)
