"""EMP-SSL: Towards Self-Supervised Learning in One Training Epoch (Tong et al., 2304.03977).

What keeps it from collapsing: the coding rate of the embeddings is maximized, which is large if
they fill all directions of the sphere. Many small crops of an image are pulled to their mean, so
that few epochs are enough. No negatives, no predictor, no stop-gradient, no moving average.
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from noneg.losses import emp_ssl
from noneg.methods.base import Embeddings, Loss, Method
from noneg.methods.limits import check_options
from noneg.methods.recipe import Recipe
from noneg.methods.traits import Traits
from noneg.networks.heads import mlp

TRAITS = Traits(family="decorrelation", more_views=True)


@dataclass(frozen=True)
class Options:
    """The authors' code.

    Args:
        invariance: weight of the agreement with the mean of the views.
        distortion: epsilon squared of the coding rate.
        projector: widths of the projector's layers after the backbone.
    """

    invariance: float = 200.0
    distortion: float = 0.2
    projector: tuple[int, ...] = (4096, 4096, 1024)

    def __post_init__(self) -> None:
        check_options(
            self, counts=("projector",), positive=("distortion",), weights=("invariance",)
        )


RECIPES = {
    # The authors have a rate of 0.3 at a batch of 100, and crops of exactly a quarter of the image;
    # LARC with a coefficient of 0.005, and Nesterov's momentum.
    "paper": Recipe(
        options=Options(),
        epochs=30,
        batch_size=100,
        optimizer="larc",
        learning_rate=0.768,
        weight_decay=1e-4,
        warmup_epochs=0.0,
        views="emp_ssl",
    ),
    # Not tuned: VICReg's settings. The weight is about the largest coding rate, as in the paper.
    "small": Recipe(
        options=Options(invariance=80.0, projector=(1024, 128)),
        batch_size=64,
        optimizer="muon",
        learning_rate=1.6e-2,
        num_views=4,
    ),
}


@final
class EMPSSL(Method):
    """Agreement of many crops, and a large coding rate."""

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
        """Cosines with the mean of the views, and each view's coding rate, on the whole batch."""
        terms = emp_ssl(e.z, invariance=self.options.invariance, distortion=self.options.distortion)
        return Loss(terms["invariance"] + terms["coding_rate"], terms)
