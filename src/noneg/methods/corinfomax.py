"""CorInfoMax: Self-Supervised Learning with an Information Maximization Criterion (2209.07999).

What keeps it from collapsing: the log-determinant of the embeddings' covariance matrix (Ozsoy et
al.) is maximized, and falls without limit if a direction dies. The matrix is averaged over
steps, and hardly remembers them in the authors' settings, so the batch should be larger than the
projection is wide. No negatives, no predictor, no stop-gradient.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from noneg.losses import corinfomax, running_covariance
from noneg.methods.base import Embeddings, Loss, Method
from noneg.methods.limits import check_options
from noneg.methods.recipe import Recipe
from noneg.methods.traits import Traits
from noneg.networks.heads import mlp

TRAITS = Traits(family="decorrelation")


@dataclass(frozen=True)
class Options:
    """The authors' code for CIFAR-10.

    Args:
        invariance: weight alpha of the agreement (1000 for CIFAR-100, 500 for ImageNet).
        decay: weight of the old covariance in the running average.
        epsilon: added to the diagonal of the covariance.
        hidden_norm: BatchNorm in the projector; the authors have none.
        projector: widths of the projector's layers after the backbone.
    """

    invariance: float = 250.0
    decay: float = 0.01
    epsilon: float = 1e-8
    hidden_norm: bool = False
    projector: tuple[int, ...] = (2048, 2048, 64)

    def __post_init__(self) -> None:
        check_options(
            self, counts=("projector",), weights=("invariance", "epsilon"), shares=("decay",)
        )


RECIPES = {
    # The authors have a rate of 0.5 at a batch of 512.
    "paper": Recipe(
        options=Options(),
        epochs=1000,
        batch_size=512,
        optimizer="sgd",
        learning_rate=0.25,
        weight_decay=1e-4,
        warmup_epochs=10.0,
        views="simclr",
    ),
    # Not tuned: VICReg's settings. The projection is narrower than a batch.
    "small": Recipe(
        options=Options(hidden_norm=True, projector=(1024, 32)),
        batch_size=64,
        optimizer="muon",
        learning_rate=1.6e-2,
    ),
}


def causes(state: str, options: Options, batch_size: int | None) -> Iterator[str]:
    """The covariance of a small batch is singular."""
    width = options.projector[-1]
    if batch_size is not None and batch_size <= width:
        yield (
            f"batches of {batch_size} images cannot fill {width} projected coordinates: give a "
            "larger --batch-size, or a narrower --options.projector"
        )


@final
class CorInfoMax(Method):
    """Agreement, and a covariance matrix with a large determinant."""

    mean: Tensor
    covariance: Tensor

    def __init__(self, backbone: nn.Module, width: int, options: Options) -> None:
        """Build the projector on a backbone of `width` features."""
        super().__init__(backbone)
        self.options = options
        self.projector = mlp(
            (width, *options.projector), bias=False, hidden_norm=options.hidden_norm
        )
        projection = options.projector[-1]
        # One for each of two branches: the first, third ... and the second, fourth ... views.
        self.register_buffer("mean", torch.zeros(2, projection))
        self.register_buffer("covariance", torch.eye(projection).repeat(2, 1, 1))

    def embed(self, views: tuple[Tensor, ...]) -> Embeddings:
        """Representation and projection of each view."""
        h = torch.stack([self.backbone(view) for view in views])
        return Embeddings(h=h, z=torch.stack([self.projector(each) for each in h]))

    def objective(self, e: Embeddings) -> Loss:
        """Updates the running covariances, through which the gradient flows, then the terms."""
        unit = normalize(e.z, dim=2)
        branches = [unit[first::2].flatten(0, 1) for first in (0, 1)]
        moved = [
            running_covariance(branch, mean, covariance, decay=self.options.decay)
            for branch, mean, covariance in zip(branches, self.mean, self.covariance, strict=True)
        ]
        means, covariances = (torch.stack(each) for each in zip(*moved, strict=True))
        self.mean = means.detach().to(self.mean)
        self.covariance = covariances.detach().to(self.covariance)
        terms = corinfomax(
            unit,
            covariances,
            invariance=self.options.invariance,
            epsilon=self.options.epsilon,
        )
        return Loss(torch.stack(list(terms.values())).sum(), terms)
