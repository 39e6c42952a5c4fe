"""TiCo: Transformation Invariance and Covariance Contrast (Zhu et al., arXiv 2206.10698).

What keeps it from collapsing: an embedding should not lie along directions that embeddings of
recent steps used, by a running covariance matrix. It acts as a memory bank of unlimited length.
Targets come from a moving average; no negatives, no predictor.

A complete collapse is a stationary point, at a `covariance` term of rho (`failure`): if it stays
there, the run has collapsed, and a lower learning rate or a longer warm-up may help.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from noneg.losses import second_moment, tico
from noneg.methods.base import Embeddings, Failure, Loss, Method, large_views
from noneg.methods.limits import check_options
from noneg.methods.recipe import Recipe
from noneg.methods.traits import Traits
from noneg.networks.heads import mlp
from noneg.networks.target import copy_as_target, update_target

TRAITS = Traits(family="decorrelation", teacher=True)


@dataclass(frozen=True)
class Options:
    """The paper's; rho is lightly's (other ports have 20).

    Args:
        rho: weight of the covariance term.
        beta: decay of the running covariance matrix per step.
        tau: decay of the moving average of the network per step at the start; it rises to 1 by a
            cosine.
        projector: widths of the projector's layers after the backbone.
    """

    rho: float = 8.0
    beta: float = 0.9
    tau: float = 0.99
    projector: tuple[int, ...] = (4096, 256)

    def __post_init__(self) -> None:
        check_options(self, counts=("projector",), weights=("rho",), shares=("beta", "tau"))


RECIPES = {
    # Length and batch are BYOL's.
    "paper": Recipe(
        options=Options(),
        epochs=1000,
        batch_size=4096,
        optimizer="lars",
        learning_rate=0.2,
        weight_decay=1.5e-6,
        warmup_epochs=10.0,
        views="byol",
    ),
    # Not tuned: BYOL's settings, without its fast predictor.
    "small": Recipe(
        options=Options(projector=(1024, 128)),
        batch_size=64,
        optimizer="muon",
        learning_rate=8e-3,
        weight_decay=0.1,
    ),
}


COLLAPSED = 0.95
"""Share of rho above which all embeddings lie along one line."""


def failure(row: Mapping[str, float], options: Options) -> Failure | None:
    """The covariance term is at its largest, where its gradient is 0."""
    if options.rho == 0 or row["covariance"] < COLLAPSED * options.rho:
        return None
    return Failure(
        "projector only",
        f"The covariance term is {row['covariance']:.2f}, and {options.rho:g} is the most: all "
        "projections lie along one line, where this term has no gradient.",
    )


def causes(state: str, options: Options, batch_size: int | None) -> Iterator[str]:
    """The covariance term is weak."""
    if options.rho < 1:
        yield "the embeddings are hardly pushed off used directions: --options.rho 8"


@final
class TiCo(Method):
    """Agreement with a moving average, and a running covariance matrix to stay away from."""

    covariance: Tensor

    def __init__(self, backbone: nn.Module, width: int, options: Options) -> None:
        """Build projector and target network on a backbone of `width` features."""
        super().__init__(backbone)
        self.options = options
        self.projector = mlp((width, *options.projector), bias=False)
        self.target = copy_as_target(self.backbone, self.projector)
        projection = options.projector[-1]
        self.register_buffer("covariance", torch.zeros(projection, projection))

    def embed(self, views: tuple[Tensor, ...]) -> Embeddings:
        """Representation and projection of each view, and its target."""
        h = torch.stack([self.backbone(view) for view in views])
        z = torch.stack([self.projector(each) for each in h])
        with torch.no_grad():
            t = torch.stack([self.target(view) for view in large_views(views)])
        return Embeddings(h=h, z=z, t=t)

    def objective(self, e: Embeddings) -> Loss:
        """Updates the running matrix by all views, then both terms."""
        assert e.t is not None
        new = second_moment(e.z.detach()).to(self.covariance.dtype)
        self.covariance = torch.lerp(self.covariance, new, 1 - self.options.beta)
        terms = tico(e.z, e.t, self.covariance.to(e.z.dtype), rho=self.options.rho)
        return Loss(terms["agreement"] + terms["covariance"], terms)

    def after_step(self, progress: float) -> None:
        """Update the target by a moving average of the network, buffers included."""
        share = (math.cos(math.pi * progress) + 1) / 2
        tau = 1 - (1 - self.options.tau) * share
        update_target(self.target, self.backbone, self.projector, decay=tau)
