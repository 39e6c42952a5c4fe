"""FroSSL: Frobenius Norm Minimization for Efficient Multiview SSL (Skean et al., 2310.02903).

What keeps it from collapsing: the entropy of the spectrum of each view's embeddings is maximized,
so all directions are used alike. It needs one Frobenius norm, of the smaller of the two Gram
matrices. No negatives, no predictor, no stop-gradient, no moving average; any number of views.
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from noneg.losses import frossl
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
        projector: widths of the projector's layers after the backbone.
    """

    invariance: float = 1.0
    projector: tuple[int, ...] = (2048, 2048, 1024)

    def __post_init__(self) -> None:
        check_options(self, counts=("projector",), weights=("invariance",))


RECIPES = {
    # The authors' views have no blur and no solarization.
    "paper": Recipe(
        options=Options(),
        epochs=1000,
        batch_size=256,
        optimizer="larc",
        learning_rate=0.3,
        weight_decay=1e-4,
        warmup_epochs=10.0,
        views="simclr",
    ),
    # Not tuned: VICReg's settings.
    "small": Recipe(
        options=Options(projector=(1024, 128)),
        batch_size=64,
        optimizer="muon",
        learning_rate=1.6e-2,
    ),
}


@final
class FroSSL(Method):
    """Agreement, and a flat spectrum."""

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
        """Invariance, and each view's entropy, on the whole batch."""
        terms = frossl(e.z, invariance=self.options.invariance)
        return Loss(torch.stack(list(terms.values())).sum(), terms)
