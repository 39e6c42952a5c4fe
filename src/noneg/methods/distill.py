"""Distillation: a student of any size learns the features of a frozen teacher, without labels.

What keeps it from collapsing: the teacher does not move, and its features differ between images.
The teacher sees each whole image once, before training; the student has to find the same features
in random views of the image, so it also learns what the views change. Features are compared up to a
linear map, as in FitNets (Romero et al., arXiv 1412.6550, section 2.2), which the head learns.
"""

from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from noneg.errors import NonegError
from noneg.losses import distance_to_target, relational_distance
from noneg.methods.base import Embeddings, Loss, Method
from noneg.methods.limits import check_options
from noneg.methods.recipe import Recipe
from noneg.methods.traits import Traits
from noneg.networks.heads import mlp

TRAITS = Traits(family="distillation", teacher=True)


@dataclass(frozen=True)
class Options:
    """The settings of a distillation.

    Args:
        teacher: timm:NAME, local-dir:FOLDER, the directory of a run or an encoder, or
            package.module:function.
        loss: "cosine" or "smooth_l1", between the student's projections and the teacher's features.
        relational: weight of the difference between the similarities of pairs of images.
        projector: widths of the head's layers after the backbone; the last one is the number of
            principal components of the teacher's features that are compared.
    """

    teacher: str = ""
    loss: Literal["cosine", "smooth_l1"] = "cosine"
    relational: float = 0.0
    projector: tuple[int, ...] = (512,)

    def __post_init__(self) -> None:
        check_options(self, counts=("projector",), weights=("relational",))


RECIPES = {
    # There is no one paper. Long schedules are what Beyer et al. (2106.05237) advise.
    "paper": Recipe(
        options=Options(),
        epochs=300,
        batch_size=512,
        optimizer="adamw",
        learning_rate=1e-3,
        weight_decay=0.03,
        warmup_epochs=10.0,
        views="gentle",
    ),
    "small": Recipe(
        options=Options(), batch_size=64, optimizer="muon", learning_rate=8e-3, weight_decay=0.01
    ),
}


@final
class Distill(Method):
    """A student and the features of its teacher."""

    targets: Tensor

    def __init__(self, backbone: nn.Module, width: int, options: Options) -> None:
        """Build the head on a backbone of `width` features."""
        super().__init__(backbone)
        self.options = options
        self.projector = mlp((width, *options.projector))
        # The run computes them again, or reads them from its directory: checkpoints stay small.
        self.register_buffer("targets", torch.zeros(0, options.projector[-1]), persistent=False)

    @torch.no_grad()
    def set_targets(self, features: Float[Tensor, "images width"]) -> None:
        """Keep the principal components of the teacher's features, centered.

        Cosines between features that are not centered are all close to 1. Components that the
        teacher does not have are 0.

        Args:
            features: of all images of the run, in their order.
        """
        centered = features.double() - features.double().mean(dim=0)
        width = self.options.projector[-1]
        if centered.shape[1] > width:
            _, directions = torch.linalg.eigh(centered.T @ centered)
            # The sign of an eigenvector is arbitrary and may differ between machines.
            largest = directions.abs().argmax(dim=0)
            directions = directions * directions.gather(0, largest[None]).sign()
            # In ascending order of their variance.
            centered = centered @ directions[:, -width:].flip(1)
        targets = centered.new_zeros(len(centered), width)
        targets[:, : centered.shape[1]] = centered
        self.targets = targets.to(self.targets)

    def embed(self, views: tuple[Tensor, ...]) -> Embeddings:
        """Representation and projection of each view."""
        h = torch.stack([self.backbone(view) for view in views])
        return Embeddings(h=h, z=torch.stack([self.projector(each) for each in h]))

    def objective(self, e: Embeddings) -> Loss:
        """Each view against its image's target; without an index, images are the first ones.

        Raises:
            NonegError: there are no targets.
        """
        if not len(self.targets):
            raise NonegError("distill needs a teacher: --options.teacher timm:resnet18, or a run")
        count = e.z.shape[1]
        index = torch.arange(count) if e.index is None else e.index
        t = self.targets[index.to(self.targets.device)].to(e.z.dtype)
        terms = {"distance": distance_to_target(e.z, t, self.options.loss)}
        if self.options.relational:
            terms["relational"] = self.options.relational * relational_distance(e.z, t)
        return Loss(torch.stack(list(terms.values())).sum(), terms)
