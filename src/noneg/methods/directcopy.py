"""DirectCopy: Towards Demystifying Non-contrastive SSL (Wang et al., arXiv 2110.04947).

What keeps it from collapsing: as in DirectPred, a predictor that is set and not trained, on one
side of BYOL's asymmetry. Here it is the correlation matrix of its inputs itself, so that nothing
has to be decomposed, and a small constant holds weak directions up. No negatives.
What it costs: one product of the projection's width squared and the batch.
"""

from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from noneg.losses import negative_cosine
from noneg.methods.base import Embeddings, Loss, Method
from noneg.methods.recipe import Recipe
from noneg.networks.heads import mlp
from noneg.networks.target import copy_as_target, move_target


@dataclass(frozen=True)
class Options:
    """As DirectPred's, with whose code it is trained.

    Args:
        rho: what the running correlation keeps of itself a step.
        epsilon: share of the identity that is added to the correlation of unit norm.
        every: steps from one update of the predictor to the next.
        target: "moving_average" of the online network, or "copy", the online network as it is.
        tau: what the moving average keeps of itself a step.
        projector: widths of the projector's layers after the backbone.
    """

    rho: float = 0.3
    epsilon: float = 0.1
    every: int = 1
    target: Literal["moving_average", "copy"] = "moving_average"
    tau: float = 0.996
    projector: tuple[int, ...] = (512, 128)


RECIPES = {
    "paper": Recipe(
        options=Options(),
        epochs=100,
        batch_size=128,
        optimizer="sgd",
        learning_rate=0.06,
        weight_decay=4e-4,
        warmup_epochs=0.0,
        views="simclr",
    ),
    "small": Recipe(options=Options(projector=(1024, 128), tau=0.98), learning_rate=3e-3),
}


@final
class DirectCopy(Method):
    """A linear predictor that is the correlation of what it predicts from."""

    correlation: Tensor
    predictor: Tensor
    steps: Tensor

    def __init__(self, backbone: nn.Module, width: int, options: Options) -> None:
        """Build projector, predictor and target network on a backbone of `width` features."""
        super().__init__(backbone)
        self.options = options
        self.projector = mlp((width, *options.projector), bias=False)
        self.target: nn.Sequential | None = None
        if options.target == "moving_average":
            self.target = copy_as_target(self.backbone, self.projector)
        projection = options.projector[-1]
        self.register_buffer("correlation", torch.zeros(projection, projection))
        self.register_buffer("predictor", torch.eye(projection))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def embed(self, views: tuple[Tensor, ...]) -> Embeddings:
        """Representation, projection and prediction of each view, and its target."""
        h = torch.stack([self.backbone(view) for view in views])
        z = torch.stack([self.projector(each) for each in h])
        if self.target is None:
            t = z.detach()
        else:
            with torch.no_grad():
                t = torch.stack([self.target(view) for view in views])
        return Embeddings(h=h, z=z, p=z @ self.predictor, t=t)

    def objective(self, e: Embeddings) -> Loss:
        """BYOL's loss; and the running correlation, uncentered, of all views."""
        assert e.p is not None
        assert e.t is not None
        flat = e.z.detach().flatten(0, 1)
        # It starts at zero, which is a matter of scale alone: the predictor does not see it.
        self.correlation.lerp_(flat.T @ flat / len(flat), 1 - self.options.rho)
        loss = 4 * (1 + negative_cosine(e.p, e.t))
        return Loss(loss, {"prediction": loss})

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Set the predictor for the next step, and move the target."""
        self.steps.add_(1)
        if int(self.steps) % self.options.every == 0:
            self.predictor.copy_(predictor_of(self.correlation, self.options.epsilon))
        if self.target is not None:
            move_target(self.target, self.backbone, self.projector, keep=self.options.tau)


def predictor_of(
    correlation: Float[Tensor, "width width"], epsilon: float
) -> Float[Tensor, "width width"]:
    """F / |F| + epsilon I, with the Frobenius norm, which takes no decomposition.

    The authors' code takes F as it is, so that the meaning of epsilon depends on how long the
    projections are.
    """
    norm = correlation.norm().clamp(min=torch.finfo(correlation.dtype).tiny)
    identity = torch.eye(len(correlation), dtype=correlation.dtype, device=correlation.device)
    predictor: Tensor = correlation / norm + epsilon * identity
    return predictor
