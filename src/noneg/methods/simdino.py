"""SimDINO: Simplifying DINO via Coding Rate Regularization (Wu et al., arXiv 2502.10385).

What keeps it from collapsing: the coding rate of the embeddings is maximized, which is large if
they fill all directions of the sphere. It replaces DINO's prototypes, center and temperatures. Each
view should agree with the large views of the teacher, a moving average. No negatives.
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from noneg.losses import simdino
from noneg.methods.base import Embeddings, Loss, Method, large_views
from noneg.methods.limits import check_options
from noneg.methods.recipe import Recipe
from noneg.methods.traits import Traits
from noneg.networks.heads import mlp
from noneg.networks.target import copy_as_target, update_target

TRAITS = Traits(family="decorrelation", teacher=True)


@dataclass(frozen=True)
class Options:
    """The authors' code.

    Args:
        distortion: epsilon of the coding rate. The authors' runs on 8 devices, each with its own
            covariance, are those of 0.4 on the whole batch.
        tau: decay of the teacher's moving average per step at the start; it rises to 1 by a cosine.
        hidden_norm: BatchNorm in the projector; the authors have none.
        projector: widths of the projector's layers after the backbone, with GELU between them.
    """

    distortion: float = 0.4
    tau: float = 0.996
    hidden_norm: bool = False
    projector: tuple[int, ...] = (2048, 2048, 256)

    def __post_init__(self) -> None:
        check_options(self, counts=("projector",), positive=("distortion",), shares=("tau",))


RECIPES = {
    # For transformers. The authors' weight decay rises to 0.4, gradients are clipped, and there are
    # eight small crops; the first view is always blurred, the second sometimes solarized.
    "paper": Recipe(
        options=Options(),
        epochs=100,
        batch_size=512,
        optimizer="adamw",
        learning_rate=5e-4,
        weight_decay=0.04,
        warmup_epochs=10.0,
        views="multi_crop",
    ),
    # Not tuned: BYOL's settings, without its fast predictor.
    "small": Recipe(
        options=Options(tau=0.99, hidden_norm=True, projector=(1024, 128)),
        batch_size=64,
        optimizer="muon",
        learning_rate=8e-3,
        weight_decay=0.1,
    ),
}


@final
class SimDINO(Method):
    """Agreement with a teacher, and a large coding rate."""

    def __init__(self, backbone: nn.Module, width: int, options: Options) -> None:
        """Build projector and teacher on a backbone of `width` features."""
        super().__init__(backbone)
        self.options = options
        self.projector = mlp(
            (width, *options.projector), hidden_norm=options.hidden_norm, activation="gelu"
        )
        self.target = copy_as_target(self.backbone, self.projector)

    def embed(self, views: tuple[Tensor, ...]) -> Embeddings:
        """Representation and projection of length 1 of each view; the teacher's projections."""
        h = torch.stack([self.backbone(view) for view in views])
        z = torch.stack([normalize(self.projector(each), dim=1) for each in h])
        with torch.no_grad():
            t = torch.stack([normalize(self.target(view), dim=1) for view in large_views(views)])
        return Embeddings(h=h, z=z, t=t)

    def objective(self, e: Embeddings) -> Loss:
        """Cosines with the teacher, and the coding rate, on the whole batch."""
        assert e.t is not None
        terms = simdino(e.z, e.t, distortion=self.options.distortion)
        return Loss(terms["agreement"] + terms["coding_rate"], terms)

    def after_step(self, progress: float) -> None:
        """Update the teacher by a moving average of the student, buffers included."""
        share = (math.cos(math.pi * progress) + 1) / 2
        tau = 1 - (1 - self.options.tau) * share
        update_target(self.target, self.backbone, self.projector, decay=tau)
