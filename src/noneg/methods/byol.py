"""BYOL: Bootstrap Your Own Latent (Grill et al., arXiv 2006.07733).

What keeps it from collapsing: an online network with a predictor predicts a target network, which
gets no gradient and follows by a moving average. Without the predictor or the stop-gradient it
collapses (paper, tables 5 and 19 to 21); without the moving average it does not if the predictor
learns fast.
"""

import math
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn

from noneg.losses import negative_cosine, variance_hinge
from noneg.methods.base import Embeddings, Loss, Method, Rate, large_views
from noneg.methods.limits import check_options
from noneg.methods.recipe import Recipe, adapted
from noneg.methods.traits import Traits
from noneg.networks.heads import mlp
from noneg.networks.target import copy_as_target, update_target

TRAITS = Traits(family="online-target", predictor=True, teacher=True)


@dataclass(frozen=True)
class Options:
    """Paper, section 3.3; the switches are its section 5 and appendix.

    Args:
        projector: widths of the projector's layers after the backbone.
        predictor: "mlp"; "linear"; "fixed", an MLP with random weights that are not trained; or
            "none".
        predictor_hidden: width of the predictor's hidden layer.
        predictor_rate: the predictor's learning rate, in multiples of the run's.
        target: "moving_average" of the online network; "copy", the online network as it is; or
            "frozen", the network at its random initialization.
        stop_gradient: False makes the online network its own target, with gradient, whatever
            `target` is.
        tau: decay of the moving average per step at the start; it rises to 1 by a cosine.
        tau_constant: keep tau constant instead (paper, table 5a).
        variance: weight of VICReg's variance term on the projections; the loss of a pair of views
            counts as 4 (1 - cos), both directions added (VICReg, 2105.04906, table 4).
    """

    projector: tuple[int, ...] = (4096, 256)
    predictor: Literal["mlp", "linear", "fixed", "none"] = "mlp"
    predictor_hidden: int = 4096
    predictor_rate: float = 1.0
    target: Literal["moving_average", "copy", "frozen"] = "moving_average"
    stop_gradient: bool = True
    tau: float = 0.996
    tau_constant: bool = False
    variance: float = 0.0

    def __post_init__(self) -> None:
        check_options(
            self,
            counts=("projector", "predictor_hidden"),
            weights=("predictor_rate", "variance"),
            shares=("tau",),
        )


RECIPES = {
    "paper": Recipe(
        options=Options(),
        epochs=1000,
        batch_size=4096,
        optimizer="lars",
        learning_rate=0.2,
        weight_decay=1.5e-6,
        warmup_epochs=10.0,
        views="byol",
    ),
    # Short runs need a target and a predictor that follow faster (appendix I), and weight decay:
    # without it, directions that the views share are hardly amplified (Tian et al., 2102.06810).
    "small": (
        _small := Recipe(
            options=Options(
                projector=(1024, 256), predictor_hidden=1024, predictor_rate=5.0, tau=0.9
            ),
            batch_size=64,
            optimizer="muon",
            learning_rate=8e-3,
            weight_decay=0.1,
        )
    ),
    # At a tenth of the heads' rate, a network of known weights lost four points (docs/log.md,
    # 2026-11-28): the moving average follows what the predictor has not learned yet.
    "adapt": adapted(_small, backbone_rate=0.02),
}


@final
class BYOL(Method):
    """An online network predicts its own moving average."""

    def __init__(self, backbone: nn.Module, width: int, options: Options) -> None:
        """Build the heads and the target network on a backbone of `width` features."""
        super().__init__(backbone, {"predictor": Rate(options.predictor_rate)})
        self.options = options
        self.projector = mlp((width, *options.projector), bias=False)
        projection = options.projector[-1]
        self.predictor: nn.Module = nn.Identity()
        if options.predictor == "linear":
            self.predictor = mlp((projection, projection), bias=False)
        elif options.predictor != "none":
            self.predictor = mlp((projection, options.predictor_hidden, projection), bias=False)
            self.predictor.requires_grad_(options.predictor == "mlp")

        self.target: nn.Sequential | None = None
        if options.stop_gradient and options.target != "copy":
            self.target = copy_as_target(self.backbone, self.projector)

    def embed(self, views: tuple[Tensor, ...]) -> Embeddings:
        """Representation, projection and prediction of each view, and its target."""
        h = torch.stack([self.backbone(view) for view in views])
        z = torch.stack([self.projector(each) for each in h])
        p = torch.stack([self.predictor(each) for each in z])
        large = large_views(views)
        if not self.options.stop_gradient:
            t = z[: len(large)]
        elif self.target is None:
            t = z[: len(large)].detach()
        else:
            with torch.no_grad():
                t = torch.stack([self.target(view) for view in large])
        return Embeddings(h=h, z=z, p=p, t=t)

    def objective(self, e: Embeddings) -> Loss:
        """Squared distance of unit vectors, both directions added (paper, equation 2)."""
        assert e.p is not None
        assert e.t is not None
        loss = 4 * (1 + negative_cosine(e.p, e.t))
        terms = {"prediction": loss}
        if self.options.variance:
            terms["variance"] = self.options.variance * variance_hinge(e.z)
        return Loss(torch.stack(list(terms.values())).sum(), terms)

    def after_step(self, progress: float) -> None:
        """Update the target by a moving average of the online network, buffers included."""
        if self.target is None or self.options.target == "frozen":
            return
        share = 1.0 if self.options.tau_constant else (math.cos(math.pi * progress) + 1) / 2
        tau = 1 - (1 - self.options.tau) * share
        update_target(self.target, self.backbone, self.projector, decay=tau)
