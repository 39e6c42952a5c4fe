"""SimSiam: Exploring Simple Siamese Representation Learning (Chen and He, arXiv 2011.10566).

What keeps it from collapsing: a predictor on one view and a stop-gradient on the other. Without
either of them it collapses. The paper interprets this as an alternation between the network and a
target for each image (its section 5), and says that this does not explain why collapse is avoided.
"""

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn

from noneg.errors import NonegError
from noneg.losses import negative_cosine, variance_hinge
from noneg.methods.base import Embeddings, Loss, Method, Rate, large_views, own_targets
from noneg.methods.limits import check_options
from noneg.methods.recipe import Recipe
from noneg.methods.traits import Traits
from noneg.networks.heads import mlp
from noneg.networks.target import copy_as_target, update_target

TRAITS = Traits(family="online-target", predictor=True)


@dataclass(frozen=True)
class Options:
    """Paper, section 3; the switches are its section 4.

    Args:
        projector: widths of the projector's layers after the backbone.
        norm: BatchNorm in the heads (paper, table 3): "default", between all layers and at the
            projector's end; "hidden", only between layers; "none"; or "all", also at the
            predictor's end.
        predictor: "mlp"; "fixed", an MLP with random weights that are not trained; or "none".
        predictor_hidden: width of the predictor's hidden layer.
        predictor_rate: the predictor's learning rate, in multiples of the run's.
        predictor_constant: keep the predictor's learning rate constant (paper, table 1c).
        stop_gradient: False lets the gradient also flow into the target.
        hold: steps between two updates of the weights that the targets come from, or "epoch": the
            alternation of the paper's table 6, in which 1 is SimSiam itself.
        variance: weight of VICReg's variance term on the projections (VICReg, 2105.04906, table 4:
            without BatchNorm, SimSiam needs it).
    """

    projector: tuple[int, ...] = (2048, 2048, 2048)
    norm: Literal["default", "hidden", "none", "all"] = "default"
    predictor: Literal["mlp", "fixed", "none"] = "mlp"
    predictor_hidden: int = 512
    predictor_rate: float = 1.0
    predictor_constant: bool = True
    stop_gradient: bool = True
    hold: int | Literal["epoch"] = 1
    variance: float = 0.0

    def __post_init__(self) -> None:
        check_options(
            self, counts=("projector", "predictor_hidden"), weights=("predictor_rate", "variance")
        )
        if self.hold != "epoch" and self.hold < 1:
            raise NonegError(f"--options.hold must be at least 1, or epoch, and is {self.hold}")
        if self.hold != 1 and not self.stop_gradient:
            raise NonegError(
                "held targets have no gradient: --options.hold needs --options.stop-gradient true"
            )


RECIPES = {
    "paper": Recipe(
        options=Options(),
        epochs=100,
        batch_size=512,
        optimizer="sgd",
        learning_rate=0.05,
        weight_decay=1e-4,
        warmup_epochs=0.0,
        views="simsiam",
    ),
    # Weight decay: see BYOL.
    "small": Recipe(
        options=Options(projector=(1024, 1024), predictor_hidden=256),
        batch_size=64,
        optimizer="muon",
        learning_rate=8e-3,
        weight_decay=0.05,
    ),
}


@final
class SimSiam(Method):
    """One network, with a predictor and a stop-gradient."""

    steps_held: Tensor

    def __init__(self, backbone: nn.Module, width: int, options: Options) -> None:
        """Build projector and predictor on a backbone of `width` features."""
        rate = Rate(options.predictor_rate, constant=options.predictor_constant)
        super().__init__(backbone, {"predictor": rate})
        self.options = options
        hidden_norm = options.norm != "none"
        self.projector = mlp(
            (width, *options.projector),
            output="plain_norm" if options.norm in ("default", "all") else "linear",
            hidden_norm=hidden_norm,
        )
        projection = options.projector[-1]
        self.predictor: nn.Module = nn.Identity()
        if options.predictor != "none":
            self.predictor = mlp(
                (projection, options.predictor_hidden, projection),
                output="norm" if options.norm == "all" else "linear",
                hidden_norm=hidden_norm,
            )
            self.predictor.requires_grad_(options.predictor == "mlp")

        self.held: nn.Sequential | None = None
        if options.hold != 1:
            self.held = copy_as_target(self.backbone, self.projector)
            self.register_buffer("steps_held", torch.zeros((), dtype=torch.int64))

    def embed(self, views: tuple[Tensor, ...]) -> Embeddings:
        """Representation, projection and prediction of each view, and its target."""
        h = torch.stack([self.backbone(view) for view in views])
        z = torch.stack([self.projector(each) for each in h])
        p = torch.stack([self.predictor(each) for each in z])
        t = own_targets(z, views)
        if self.held is not None:
            with torch.no_grad():
                t = torch.stack([self.held(view) for view in large_views(views)])
        return Embeddings(h=h, z=z, p=p, t=t)

    def objective(self, e: Embeddings) -> Loss:
        """Each prediction against the projections of the other views."""
        assert e.p is not None
        target = e.z if e.t is None else e.t
        loss = negative_cosine(e.p, target.detach() if self.options.stop_gradient else target)
        terms = {"negative_cosine": loss}
        if self.options.variance:
            terms["variance"] = self.options.variance * variance_hinge(e.z)
        return Loss(torch.stack(list(terms.values())).sum(), terms)

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Copy the network to the held one every `hold` steps."""
        if self.held is None or self.options.hold == "epoch":
            return
        self.steps_held += 1
        if int(self.steps_held) % self.options.hold == 0:
            update_target(self.held, self.backbone, self.projector, decay=0.0)

    @torch.no_grad()
    def after_epoch(self) -> None:
        """Copy the network to the held one, if it is held for an epoch."""
        if self.held is not None and self.options.hold == "epoch":
            update_target(self.held, self.backbone, self.projector, decay=0.0)
