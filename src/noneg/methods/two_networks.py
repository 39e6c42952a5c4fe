"""Two networks without shared weights, one per view, with VICReg's or Barlow Twins' objective.

What keeps it from collapsing: the objective, on the embeddings of each network (VICReg, arXiv
2105.04906, section 6.2 and table 5). BYOL and SimSiam cannot do this: their targets are copies.
"""

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn

from noneg.losses import barlow_twins, vicreg
from noneg.methods.base import Embeddings, Loss, Method
from noneg.methods.limits import check_options
from noneg.methods.recipe import Recipe
from noneg.methods.traits import Traits
from noneg.networks.backbones import build_another, build_backbone
from noneg.networks.heads import mlp

TRAITS = Traits(family="decorrelation")


@dataclass(frozen=True)
class Options:
    """VICReg's table 5.

    Args:
        objective: on the projections of both networks, with its paper's weights.
        second: backbone of the second network, which is not part of the encoder: "same" as the
            first one's, or a name from `noneg list backbones`, for images of 3 channels and up to
            64 pixels.
        projector: widths of each projector's layers after its backbone.
    """

    objective: Literal["vicreg", "barlow_twins"] = "vicreg"
    second: str = "same"
    projector: tuple[int, ...] = (8192, 8192, 8192)

    def __post_init__(self) -> None:
        check_options(self, counts=("projector",))


RECIPES = {
    "paper": Recipe(
        options=Options(),
        epochs=100,
        batch_size=2048,
        optimizer="lars",
        learning_rate=0.3,
        weight_decay=1e-6,
        warmup_epochs=10.0,
        views="vicreg",
    ),
    "small": Recipe(
        options=Options(projector=(1024, 1024)),
        batch_size=64,
        optimizer="muon",
        learning_rate=1.6e-2,
    ),
}


@final
class TwoNetworks(Method):
    """A joint embedding by two networks without shared weights."""

    def __init__(self, backbone: nn.Module, width: int, options: Options) -> None:
        """Build the second network, and a projector on each; the backbone has `width` features."""
        super().__init__(backbone)
        self.options = options
        if options.second == "same":
            self.second: nn.Module = build_another(backbone)
        else:
            other = build_backbone(options.second, channels=3, size=32)
            features = other.num_features
            assert isinstance(features, int)
            # Both representations need the same width.
            align = nn.Identity() if features == width else nn.Linear(features, width)
            self.second = nn.Sequential(other, align)
        self.projector = mlp((width, *options.projector), bias=False)
        self.second_projector = mlp((width, *options.projector), bias=False)

    def embed(self, views: tuple[Tensor, ...]) -> Embeddings:
        """Representation and projection of each view, by the first and second network in turn."""
        backbones = (self.backbone, self.second)
        projectors = (self.projector, self.second_projector)
        h = torch.stack([backbones[number % 2](view) for number, view in enumerate(views)])
        z = torch.stack([projectors[number % 2](each) for number, each in enumerate(h)])
        return Embeddings(h=h, z=z)

    def objective(self, e: Embeddings) -> Loss:
        """The chosen objective, on the whole batch."""
        terms = vicreg(e.z) if self.options.objective == "vicreg" else barlow_twins(e.z)
        return Loss(torch.stack(list(terms.values())).sum(), terms)
