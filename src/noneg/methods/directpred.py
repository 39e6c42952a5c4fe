"""DirectPred and DirectCopy: BYOL with a linear predictor that is computed, not trained.

- DirectPred: Understanding Self-Supervised Learning Dynamics without Contrastive Pairs
  (Tian et al., arXiv 2102.06810); `--options.predictor eigenvalues`, the default.
- DirectCopy: Towards Demystifying Representation Learning with Non-contrastive Self-supervision
  (Wang et al., arXiv 2110.04947); `--options.predictor copy`.

What keeps it from collapsing: BYOL's asymmetry, with a predictor that is always aligned with the
correlation matrix of its inputs. DirectPred computes it from the eigenvalues of that matrix;
DirectCopy takes the matrix itself. Strong directions pass, and a small constant holds weak ones up.
No negatives.
What it costs: one product of the projection's width squared and the batch per step; DirectPred also
an eigendecomposition of that width per update.

To compare with a trained linear predictor: `--method byol --options.predictor linear`.
"""

from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from noneg.losses import negative_cosine
from noneg.losses.inputs import to_float64
from noneg.methods.base import Embeddings, Loss, Method, large_views
from noneg.methods.limits import check_options
from noneg.methods.recipe import Recipe
from noneg.methods.traits import Traits
from noneg.networks.heads import mlp
from noneg.networks.target import copy_as_target, update_target

TRAITS = Traits(family="online-target", predictor=True, teacher=True)


@dataclass(frozen=True)
class Options:
    """DirectPred's paper, section 5 (equations 18 and 19); else the authors' code on STL-10.

    DirectCopy has the same defaults, because it is compared in the same code.

    Args:
        predictor: "eigenvalues", DirectPred, or "copy", DirectCopy.
        rho: decay of the running correlation matrix per step.
        epsilon: the predictor is a matrix plus epsilon times the identity; the matrix has a largest
            eigenvalue of 1 ("eigenvalues") or a Frobenius norm of 1 ("copy").
        every: steps between two updates of the predictor.
        isotropic: let the gradient pass around the predictor, so that all eigenvectors of the
            correlation matrix learn at one rate (IsoLoss: 2212.04858, which has rho = 0.998).
        target: "moving_average" of the online network, or "copy", the online network as it is.
        tau: decay of the moving average per step.
        projector: widths of the projector's layers after the backbone.
    """

    predictor: Literal["eigenvalues", "copy"] = "eigenvalues"
    rho: float = 0.3
    epsilon: float = 0.1
    every: int = 1
    isotropic: bool = False
    target: Literal["moving_average", "copy"] = "moving_average"
    tau: float = 0.996
    projector: tuple[int, ...] = (512, 128)

    def __post_init__(self) -> None:
        check_options(
            self, counts=("projector", "every"), weights=("epsilon",), shares=("rho", "tau")
        )


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
    "small": Recipe(
        options=Options(projector=(1024, 128), tau=0.98),
        batch_size=64,
        optimizer="muon",
        learning_rate=8e-3,
        weight_decay=0.1,
    ),
}


@final
class DirectPred(Method):
    """A linear predictor that is computed from the correlation matrix of its inputs."""

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
        large = large_views(views)
        if self.target is None:
            t = z[: len(large)].detach()
        else:
            with torch.no_grad():
                t = torch.stack([self.target(view) for view in large])
        p = z @ self.predictor
        if self.options.isotropic:
            p = z + (p - z).detach()
        return Embeddings(h=h, z=z, p=p, t=t)

    def objective(self, e: Embeddings) -> Loss:
        """BYOL's loss; updates the running correlation, uncentered, of all views (equation 19)."""
        assert e.p is not None
        assert e.t is not None
        flat = e.z.detach().flatten(0, 1)
        # Starting at zero only scales it, and the predictor does not depend on the scale.
        self.correlation.lerp_(flat.T @ flat / len(flat), 1 - self.options.rho)
        loss = 4 * (1 + negative_cosine(e.p, e.t))
        return Loss(loss, {"prediction": loss})

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Compute the predictor for the next step, and update the target."""
        self.steps.add_(1)
        if int(self.steps) % self.options.every == 0:
            compute = {"eigenvalues": directpred_predictor, "copy": directcopy_predictor}
            predictor = compute[self.options.predictor](self.correlation, self.options.epsilon)
            self.predictor.copy_(predictor)
        if self.target is not None:
            update_target(self.target, self.backbone, self.projector, decay=self.options.tau)


def directpred_predictor(
    correlation: Float[Tensor, "width width"], epsilon: float
) -> Float[Tensor, "width width"]:
    """U diag(sqrt(s_j) + epsilon) U', s_j the eigenvalues over the largest (equation 18).

    As in the authors' code; equation 18 has epsilon times the largest eigenvalue, and does not
    divide by it. Computed in float64 where the device has it: square roots magnify the rounding of
    small eigenvalues.
    """
    exact = to_float64(correlation)
    values, vectors = torch.linalg.eigh(exact)
    shares = (values / values[-1].clamp(min=torch.finfo(exact.dtype).tiny)).clamp(min=0)
    predictor: Tensor = vectors * (shares.sqrt() + epsilon) @ vectors.T
    return predictor.to(correlation.dtype)


def directcopy_predictor(
    correlation: Float[Tensor, "width width"], epsilon: float
) -> Float[Tensor, "width width"]:
    """F / |F| + epsilon I, F the correlation matrix, |F| its Frobenius norm.

    The authors' code does not divide F by its norm, so there the meaning of epsilon depends on the
    length of the projections.
    """
    norm = correlation.norm().clamp(min=torch.finfo(correlation.dtype).tiny)
    identity = torch.eye(len(correlation), dtype=correlation.dtype, device=correlation.device)
    predictor: Tensor = correlation / norm + epsilon * identity
    return predictor
