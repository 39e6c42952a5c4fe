"""VIbCReg: VICReg with a better covariance term (Lee and Aune, arXiv 2109.00783).

What keeps it from collapsing: as in VICReg, the variance term keeps every coordinate's standard
deviation at 1 or more, and the covariance term, here of correlations, forbids copies of a
coordinate. No negatives, no predictor, no stop-gradient, no moving average.

The paper's projector ends with iterative normalization, which is not here; solo-learn's does
without it by default too.
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from noneg.losses import vibcreg
from noneg.methods.base import Embeddings, Loss, Method
from noneg.methods.limits import check_options
from noneg.methods.recipe import Recipe
from noneg.methods.traits import Traits
from noneg.networks.heads import mlp

TRAITS = Traits(family="decorrelation")


@dataclass(frozen=True)
class Options:
    """The authors' code.

    Args:
        invariance: weight of the agreement between views.
        variance: weight of the hinge on the standard deviations.
        covariance: weight of the squared correlations.
        projector: widths of the projector's layers after the backbone.
    """

    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 200.0
    projector: tuple[int, ...] = (4096, 4096, 4096)

    def __post_init__(self) -> None:
        check_options(self, counts=("projector",), weights=("invariance", "variance", "covariance"))


RECIPES = {
    # The paper is about time series: optimizer and views are VICReg's.
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
    # Not tuned: VICReg's settings.
    "small": Recipe(
        options=Options(projector=(1024, 256)),
        batch_size=64,
        optimizer="muon",
        learning_rate=1.6e-2,
    ),
}


@final
class VIbCReg(Method):
    """Variance, invariance, correlation."""

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
        """Invariance, and variance and correlation of each view, on the whole batch."""
        terms = vibcreg(
            e.z,
            invariance=self.options.invariance,
            variance=self.options.variance,
            covariance=self.options.covariance,
        )
        return Loss(torch.stack(list(terms.values())).sum(), terms)
