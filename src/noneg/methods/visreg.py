"""VISReg: scale, center and shape of the embeddings' distribution (Wu et al., arXiv 2606.02572).

What keeps it from collapsing: the deviation of every coordinate is pulled to 1, with a slope that
does not vanish near a collapse, and the shape of all random projections to a Gaussian's, which
forbids copies of a coordinate. No negatives, no predictor, no stop-gradient, no moving average.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from noneg.losses import visreg
from noneg.methods.base import Embeddings, Loss, Method, own_targets
from noneg.methods.limits import check_options
from noneg.methods.recipe import Recipe
from noneg.methods.traits import Traits
from noneg.networks.heads import mlp

TRAITS = Traits(family="distribution matching")


@dataclass(frozen=True)
class Options:
    """Paper, for ImageNet: lambda is 0.9, and 0.6 for ten of its classes.

    Args:
        invariance: weight of the distance of each view from the mean of the large views, 1 -
            lambda.
        center: weight of the center, lambda.
        scale: weight of the scale, lambda.
        shape: weight of the shape, lambda.
        slices: number of random directions per step.
        projector: widths of the projector's layers after the backbone.
    """

    invariance: float = 0.1
    center: float = 0.9
    scale: float = 0.9
    shape: float = 0.9
    slices: int = 4096
    projector: tuple[int, ...] = (2048, 2048, 256)

    def __post_init__(self) -> None:
        check_options(
            self, counts=("projector", "slices"), weights=("invariance", "center", "scale", "shape")
        )


RECIPES = {
    # The paper's Imagenette runs have these views, four large crops, and this rate; their lambda is
    # 0.6, their projection 128 wide, their code has batches of 64, and gradients are clipped.
    "paper": Recipe(
        options=Options(),
        epochs=800,
        batch_size=256,
        optimizer="adamw",
        learning_rate=1e-3,
        weight_decay=5e-2,
        warmup_epochs=10.0,
        views="simclr",
        num_views=4,
    ),
    # Not tuned: VICReg's settings, and lambda = 0.6.
    "small": Recipe(
        options=Options(
            invariance=0.4, center=0.6, scale=0.6, shape=0.6, slices=512, projector=(1024, 128)
        ),
        batch_size=64,
        optimizer="muon",
        learning_rate=1.6e-2,
    ),
}


def causes(state: str, options: Options, batch_size: int | None) -> Iterator[str]:
    """The weight of the scale or the shape is 0."""
    if options.scale == 0:
        yield "nothing keeps the variance of the coordinates up: --options.scale 0.9"
    if options.shape == 0 and state != "complete collapse":
        yield "nothing decorrelates the coordinates: --options.shape 0.9"


@final
class VISReg(Method):
    """Agreement, and a Gaussian's center, scale and shape."""

    def __init__(self, backbone: nn.Module, width: int, options: Options) -> None:
        """Build the projector on a backbone of `width` features."""
        super().__init__(backbone)
        self.options = options
        self.projector = mlp((width, *options.projector), bias=False)

    def embed(self, views: tuple[Tensor, ...]) -> Embeddings:
        """Representation and projection of each view; `t` has the large ones if not all are."""
        h = torch.stack([self.backbone(view) for view in views])
        z = torch.stack([self.projector(each) for each in h])
        return Embeddings(h=h, z=z, t=own_targets(z.detach(), views))

    def objective(self, e: Embeddings) -> Loss:
        """The four terms, on the whole batch."""
        terms = visreg(
            e.z,
            invariance=self.options.invariance,
            center=self.options.center,
            scale=self.options.scale,
            shape=self.options.shape,
            slices=self.options.slices,
            large=None if e.t is None else len(e.t),
        )
        return Loss(torch.stack(list(terms.values())).sum(), terms)
