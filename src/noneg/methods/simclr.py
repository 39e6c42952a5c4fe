"""SimCLR: A Simple Framework for Contrastive Learning (Chen et al., arXiv 2002.05709).

What keeps it from collapsing: negatives. Each view must find its image's other view among all views
of the batch, which a constant embedding cannot. Contrastive: for comparison.
What it costs: similarities between all views, and a large batch, since its other images are the
only negatives (paper, figure 9).
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from noneg.losses import nt_xent
from noneg.methods.base import Embeddings, Loss, Method
from noneg.methods.limits import check_options
from noneg.methods.recipe import Recipe
from noneg.methods.traits import Traits
from noneg.networks.heads import mlp

TRAITS = Traits(family="contrastive", large_batch=True)


@dataclass(frozen=True)
class Options:
    """Paper, sections 2.1 and 4.2; figure 8 has the width of the hidden layer.

    Args:
        temperature: divisor of the cosines: 0.1 on ImageNet, 0.5 on CIFAR-10 (appendix B.9).
        projector: widths of the projector's layers after the backbone.
    """

    temperature: float = 0.1
    projector: tuple[int, ...] = (2048, 128)

    def __post_init__(self) -> None:
        check_options(self, counts=("projector",), positive=("temperature",))


RECIPES = {
    "paper": Recipe(
        options=Options(),
        epochs=100,
        batch_size=4096,
        optimizer="lars",
        learning_rate=0.3,
        weight_decay=1e-6,
        warmup_epochs=10.0,
        views="simclr",
    ),
    "small": Recipe(
        options=Options(temperature=0.5, projector=(1024, 128)),
        batch_size=64,
        optimizer="muon",
        learning_rate=1.6e-2,
    ),
}


@final
class SimCLR(Method):
    """Each view finds its image's other view among all views of the batch."""

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
        """Each view against all others of the whole batch (paper, equation 1)."""
        terms = nt_xent(e.z, temperature=self.options.temperature)
        return Loss(terms["nt_xent"], terms)
