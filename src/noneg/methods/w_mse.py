"""W-MSE: Whitening for Self-Supervised Representation Learning (Ermolov et al., 2007.06346).

What keeps it from collapsing: embeddings are whitened before they are compared, so their
covariance is the identity whatever the network does; a constant one cannot be whitened. No
negatives, no predictor, no stop-gradient. Groups of images are whitened, more images than
coordinates each, so the projection is narrow.
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from noneg.losses import w_mse
from noneg.methods.base import Embeddings, Loss, Method, random_order
from noneg.methods.limits import check_options
from noneg.methods.recipe import Recipe
from noneg.methods.traits import Traits
from noneg.networks.heads import mlp

TRAITS = Traits(family="decorrelation")


@dataclass(frozen=True)
class Options:
    """The authors' code, for images of 32 pixels.

    Args:
        group: images that are whitened together, at least; twice as many as the projection is wide
            in the authors' settings. A smaller batch is one group.
        shuffles: how often per step the batch is divided into random groups; 1, or 4 for the
            authors' larger images.
        epsilon: weight of the identity in the covariance; above 0, fewer images than coordinates
            can be whitened.
        projector: widths of the projector's layers after the backbone.
    """

    group: int = 128
    shuffles: int = 1
    epsilon: float = 0.0
    projector: tuple[int, ...] = (1024, 64)

    def __post_init__(self) -> None:
        check_options(self, counts=("projector", "group", "shuffles"), shares=("epsilon",))


RECIPES = {
    # The authors have a rate of 3e-3 at a batch of 512, which falls to a fifth 50 and 25 epochs
    # before the end instead of by a cosine; crops of at least a fifth, and a tenth of them gray.
    "paper": Recipe(
        options=Options(),
        epochs=1000,
        batch_size=512,
        optimizer="adamw",
        learning_rate=1.5e-3,
        weight_decay=1e-6,
        warmup_epochs=5.0,
        views="simclr",
    ),
    # Not tuned: VICReg's settings. A batch of 64 is one group.
    "small": Recipe(
        options=Options(group=64, projector=(1024, 32)),
        batch_size=64,
        optimizer="muon",
        learning_rate=1.6e-2,
    ),
}


@final
class WMSE(Method):
    """Whitened embeddings of an image's views should agree."""

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
        """The distance of whitened views, in random groups of the whole batch.

        Raises:
            NonegError: the batch has no more images than the projection has coordinates.
        """
        groups = max(1, e.z.shape[1] // self.options.group)
        losses = [
            w_mse(
                e.z,
                epsilon=self.options.epsilon,
                per_view=True,
                groups=groups,
                order=random_order(e),
            )["w_mse"]
            # A single group is the same in any order.
            for _ in range(self.options.shuffles if groups > 1 else 1)
        ]
        loss = torch.stack(losses).mean()
        return Loss(loss, {"w_mse": loss})
