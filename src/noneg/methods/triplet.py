"""Triplets: FaceNet, A Unified Embedding for Face Recognition (Schroff et al., arXiv 1503.03832).

What keeps it from collapsing: negatives. An image's other view must be nearer than another image by
a margin; a constant embedding costs the whole margin. Contrastive: for comparison.
What it costs: a choice of negatives that are neither so easy that they have no gradient, nor so
hard that the embedding collapses, with the margin as its loss. Large batches hold better ones: the
paper has about 1,800 images (section 3.2).
"""

from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Int
from torch import Tensor, nn

from noneg.losses import triplet
from noneg.methods.base import Embeddings, Loss, Method, random_order
from noneg.methods.limits import check_options
from noneg.methods.recipe import Recipe
from noneg.methods.traits import Traits
from noneg.networks.heads import mlp

TRAITS = Traits(family="contrastive", large_batch=True)


@dataclass(frozen=True)
class Options:
    """Paper, section 3. Projector and recipe are SimCLR's, because the paper's data had labels.

    Args:
        margin: by how much the squared distance to the negative should exceed the positive's.
        negatives: from the whole batch: "random"; "semi_hard", the nearest that is further than the
            positive; or "hardest", the nearest (Hermans et al., 1703.07737).
        projector: widths of the projector's layers after the backbone.
    """

    margin: float = 0.2
    negatives: Literal["random", "semi_hard", "hardest"] = "semi_hard"
    projector: tuple[int, ...] = (2048, 128)

    def __post_init__(self) -> None:
        check_options(self, counts=("projector",), positive=("margin",))


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
        options=Options(projector=(1024, 128)),
        batch_size=64,
        optimizer="muon",
        learning_rate=1.6e-2,
    ),
}


@final
class Triplet(Method):
    """An image's other view should be nearer than another image."""

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
        """Each view with its image's other views, and negatives from the whole batch."""
        options = self.options
        negatives = _next_in_cycle(e) if options.negatives == "random" else options.negatives
        terms = triplet(e.z, margin=options.margin, negatives=negatives)
        return Loss(terms["triplet"], terms)


def _next_in_cycle(e: Embeddings) -> Int[Tensor, "batch"]:
    """For each image, the position of the next one in a random cycle through the batch."""
    cycle = random_order(e)
    following = torch.empty_like(cycle)
    following[cycle] = cycle.roll(-1)
    return following
