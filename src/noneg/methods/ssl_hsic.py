"""SSL-HSIC: Learning by Maximizing Dependence on the Image (Li et al., arXiv 2106.08320).

What keeps it from collapsing: embeddings should depend on which image they are of, by a kernel
measure of dependence, which is 0 for constant ones. A second term bounds their dependence on
themselves. Online predictions and the targets of a moving average are views alike, and the
targets get no gradient.

The kernel is exact; the authors have 512 random features, and learn the kernel's scale, which is
an option here.
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from noneg.losses import hsic
from noneg.methods.base import Embeddings, Loss, Method, large_views
from noneg.methods.limits import check_options
from noneg.methods.recipe import Recipe
from noneg.methods.traits import Traits
from noneg.networks.heads import mlp
from noneg.networks.target import copy_as_target, update_target

TRAITS = Traits(family="decorrelation", predictor=True, teacher=True)


@dataclass(frozen=True)
class Options:
    """The authors' code: BYOL's networks.

    Args:
        gamma: weight of the dependence of the embeddings on themselves.
        scale: of the inverse multiquadric kernel, in units of the length of an embedding.
        tau: decay of the moving average per step at the start; it rises to 1 by a cosine.
        projector: widths of the projector's layers after the backbone.
        predictor_hidden: width of the predictor's hidden layer.
    """

    gamma: float = 3.0
    scale: float = 1.0
    tau: float = 0.99
    projector: tuple[int, ...] = (4096, 256)
    predictor_hidden: int = 4096

    def __post_init__(self) -> None:
        check_options(
            self,
            counts=("projector", "predictor_hidden"),
            positive=("scale",),
            weights=("gamma",),
            shares=("tau",),
        )


RECIPES = {
    "paper": Recipe(
        options=Options(),
        epochs=1000,
        batch_size=4096,
        optimizer="lars",
        learning_rate=0.4,
        weight_decay=1e-6,
        warmup_epochs=10.0,
        views="byol",
    ),
    # Not tuned: BYOL's settings.
    "small": Recipe(
        options=Options(projector=(1024, 256), predictor_hidden=1024, tau=0.9),
        batch_size=64,
        optimizer="muon",
        learning_rate=8e-3,
        weight_decay=0.1,
    ),
}


@final
class SSLHSIC(Method):
    """Predictions and targets of an image depend on the image."""

    def __init__(self, backbone: nn.Module, width: int, options: Options) -> None:
        """Build the heads and the target network on a backbone of `width` features."""
        super().__init__(backbone)
        self.options = options
        self.projector = mlp((width, *options.projector), bias=False)
        projection = options.projector[-1]
        self.predictor = mlp((projection, options.predictor_hidden, projection), bias=False)
        self.target = copy_as_target(self.backbone, self.projector)

    def embed(self, views: tuple[Tensor, ...]) -> Embeddings:
        """Representation, projection and prediction of each view, and its target."""
        h = torch.stack([self.backbone(view) for view in views])
        z = torch.stack([self.projector(each) for each in h])
        with torch.no_grad():
            t = torch.stack([self.target(view) for view in large_views(views)])
        return Embeddings(h=h, z=z, p=torch.stack([self.predictor(each) for each in z]), t=t)

    def objective(self, e: Embeddings) -> Loss:
        """Both measures, of predictions and targets together, scaled to length 1."""
        assert e.p is not None
        assert e.t is not None
        everything = torch.cat([normalize(e.p, dim=2), normalize(e.t.detach(), dim=2)])
        terms = hsic(everything, gamma=self.options.gamma, scale=self.options.scale)
        return Loss(terms["dependence"] + terms["regularizer"], terms)

    def after_step(self, progress: float) -> None:
        """Update the target by a moving average of the online network, buffers included."""
        share = (math.cos(math.pi * progress) + 1) / 2
        tau = 1 - (1 - self.options.tau) * share
        update_target(self.target, self.backbone, self.projector, decay=tau)
