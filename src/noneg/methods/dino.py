"""DINO: Emerging Properties in Self-Supervised Vision Transformers (Caron et al., 2104.14294).

What keeps it from collapsing: the teacher, a moving average, gives each large view a distribution
over prototypes, which is centered (no prototype may win for all images) and sharpened (not all may
win alike). Either alone collapses: to the uniform distribution, or to one prototype (paper,
section 5.3).

The signs of these (`failure`): the entropy of the teacher's distributions stays at its largest, or
that of their mean falls to 0.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from noneg.losses import assignment_entropies, dino
from noneg.methods.base import Embeddings, Failure, Loss, Method, large_views
from noneg.methods.limits import check_options
from noneg.methods.recipe import Recipe
from noneg.methods.traits import Traits
from noneg.networks.heads import Prototypes, mlp
from noneg.networks.target import copy_as_target, update_target

TRAITS = Traits(family="clustering", teacher=True)


@dataclass(frozen=True)
class Options:
    """The authors' code.

    Args:
        prototypes: width of the distributions.
        temperature: of the student.
        target_temperature: of the teacher, constant.
        center_momentum: decay of the center per step.
        tau: decay of the teacher's moving average per step at the start; it rises to 1 by a cosine.
        fixed: share of the run at its start in which prototypes are not trained; the authors have
            one epoch.
        hidden_norm: BatchNorm in the projector; the authors have none for transformers.
        projector: widths of the projector's layers after the backbone, with GELU between them.
    """

    prototypes: int = 65536
    temperature: float = 0.1
    target_temperature: float = 0.04
    center_momentum: float = 0.9
    tau: float = 0.996
    fixed: float = 0.01
    hidden_norm: bool = False
    projector: tuple[int, ...] = (2048, 2048, 256)

    def __post_init__(self) -> None:
        check_options(
            self,
            counts=("projector", "prototypes"),
            positive=("temperature", "target_temperature"),
            shares=("center_momentum", "tau", "fixed"),
        )


RECIPES = {
    # For transformers. The authors' weight decay rises to 0.4, gradients are clipped, and there are
    # eight small crops; the first view is always blurred, the second sometimes solarized.
    "paper": Recipe(
        options=Options(),
        epochs=100,
        batch_size=1024,
        optimizer="adamw",
        learning_rate=5e-4,
        weight_decay=0.04,
        warmup_epochs=10.0,
        views="multi_crop",
    ),
    # Not tuned: BYOL's settings, without its fast predictor.
    "small": Recipe(
        options=Options(prototypes=1024, tau=0.99, hidden_norm=True, projector=(1024, 128)),
        batch_size=64,
        optimizer="muon",
        learning_rate=8e-3,
        weight_decay=0.1,
    ),
}


UNIFORM, SINGLE = 0.98, 0.25
"""Shares of the largest entropy: of a target above, or of their mean below, the teacher failed."""


def failure(row: Mapping[str, float], options: Options) -> Failure | None:
    """Both collapses (paper, section 5.3 and figure 7)."""
    if row.get("prototypes_entropy", 1) < SINGLE:
        return Failure(
            "projector only",
            "The teacher gives nearly all images the same prototype (entropy of the mean target "
            f"{row['prototypes_entropy']:.2f} of the largest), so there is nothing to predict.",
        )
    if row.get("target_entropy", 0) > UNIFORM:
        return Failure(
            "not learning",
            "The teacher gives each image all prototypes alike (entropy of a target "
            f"{row['target_entropy']:.3f} of the largest), so there is nothing to predict.",
        )
    return None


def causes(state: str, options: Options, batch_size: int | None) -> Iterator[str]:
    """Centering or sharpening is off."""
    if options.center_momentum == 1:
        yield (
            "the center never moves, so one prototype may win for all images: "
            "--options.center-momentum 0.9"
        )
    if options.target_temperature >= options.temperature:
        yield (
            "the teacher is no sharper than the student, so all prototypes may win alike: "
            "--options.target-temperature 0.04"
        )


@final
class DINO(Method):
    """Each view predicts the teacher's distribution over prototypes."""

    center: Tensor
    progress: Tensor

    def __init__(self, backbone: nn.Module, width: int, options: Options) -> None:
        """Build projector, prototypes and teacher on a backbone of `width` features."""
        super().__init__(backbone)
        self.options = options
        self.projector = mlp(
            (width, *options.projector), hidden_norm=options.hidden_norm, activation="gelu"
        )
        self.prototypes = Prototypes(options.projector[-1], options.prototypes)
        self.target = copy_as_target(self.backbone, self.projector, self.prototypes)
        self.register_buffer("center", torch.zeros(options.prototypes))
        self.register_buffer("progress", torch.zeros(()))

    def embed(self, views: tuple[Tensor, ...]) -> Embeddings:
        """Representation, projection of length 1 and scores of each view; the teacher's scores."""
        h = torch.stack([self.backbone(view) for view in views])
        z = torch.stack([normalize(self.projector(each), dim=1) for each in h])
        fixed = bool(self.progress < self.options.fixed)
        p = torch.stack([self.prototypes(each, fixed=fixed) for each in z])
        with torch.no_grad():
            t = torch.stack([self.target(view) for view in large_views(views)])
        return Embeddings(h=h, z=z, p=p, t=t)

    def objective(self, e: Embeddings) -> Loss:
        """The cross-entropy; then the center moves to the mean of the teacher's scores."""
        assert e.p is not None
        assert e.t is not None
        terms = dino(
            e.p,
            e.t,
            self.center.to(e.t.dtype),
            temperature=self.options.temperature,
            target_temperature=self.options.target_temperature,
        )
        mean = e.t.detach().mean(dim=(0, 1)).to(self.center.dtype)
        self.center = torch.lerp(mean, self.center, self.options.center_momentum)
        return Loss(terms["dino"], terms)

    def meters(self, e: Embeddings) -> dict[str, float]:
        """Entropies of the targets; 1 and 1, or 0 and 0, if the teacher failed."""
        assert e.t is not None
        shares = ((e.t - self.center.to(e.t)) / self.options.target_temperature).softmax(dim=2)
        of_images, of_mean = assignment_entropies(shares)
        return {"target_entropy": of_images, "prototypes_entropy": of_mean}

    def begin_again(self) -> None:
        """Forget how far the last run was."""
        self.progress.zero_()

    def after_step(self, progress: float) -> None:
        """Update the teacher by a moving average of the student, buffers included."""
        self.progress.fill_(progress)
        share = (math.cos(math.pi * progress) + 1) / 2
        tau = 1 - (1 - self.options.tau) * share
        update_target(self.target, self.backbone, self.projector, self.prototypes, decay=tau)
