"""VICReg: Variance-Invariance-Covariance Regularization (Bardes et al., arXiv 2105.04906).

What keeps it from collapsing: the variance term keeps every coordinate's standard deviation over
the batch at 1 or more, and the covariance term decorrelates the coordinates. No negatives, no
predictor, no stop-gradient, no moving average.
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from noneg.losses import radial_divergence, vicreg
from noneg.methods.base import Embeddings, Loss, Method
from noneg.methods.limits import check_options
from noneg.methods.recipe import Recipe
from noneg.methods.traits import Traits
from noneg.networks.heads import mlp

TRAITS = Traits(family="decorrelation")


@dataclass(frozen=True)
class Options:
    """Paper, section 4.2 and appendix D.

    Args:
        invariance: weight of the agreement between views.
        variance: weight of the hinge on the standard deviations.
        covariance: weight of the squared off-diagonal covariances.
        radial: weight of the divergence of the embeddings' lengths from those of a Gaussian; 100 in
            Radial-VCReg (2602.14272).
        projector: widths of the projector's layers after the backbone.
    """

    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    radial: float = 0.0
    projector: tuple[int, ...] = (8192, 8192, 8192)

    def __post_init__(self) -> None:
        check_options(
            self, counts=("projector",), weights=("invariance", "variance", "covariance", "radial")
        )


RECIPES = {
    "paper": Recipe(
        options=Options(),
        epochs=1000,
        batch_size=2048,
        optimizer="lars",
        learning_rate=0.2,
        weight_decay=1e-6,
        warmup_epochs=10.0,
        views="vicreg",
    ),
    "small": Recipe(
        options=Options(covariance=4.0, projector=(1024, 1024)),
        batch_size=64,
        optimizer="muon",
        learning_rate=1.6e-2,
    ),
}


@final
class VICReg(Method):
    """Variance, invariance, covariance."""

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
        """Invariance, and variance and covariance of each view, on the whole batch."""
        terms = vicreg(
            e.z,
            invariance=self.options.invariance,
            variance=self.options.variance,
            covariance=self.options.covariance,
        )
        if self.options.radial:
            terms["radial"] = self.options.radial * radial_divergence(e.z)
        return Loss(torch.stack(list(terms.values())).sum(), terms)
