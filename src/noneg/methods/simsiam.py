"""SimSiam: Exploring Simple Siamese Representation Learning (Chen and He, arXiv 2011.10566).

What keeps it from collapsing: a predictor on one view and a stop-gradient on the other. The paper
reads this as alternating between the network and a per-image target (its section 5), and says that
this does not explain why collapse is avoided. Without either, it collapses.
"""

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn

from noneg.heads import mlp
from noneg.losses import negative_cosine
from noneg.methods.base import Embeddings, Method, Rate, Recipe, Step


@dataclass(frozen=True)
class Options:
    """Paper, section 3; the switches are its section 4.

    Args:
        projector: widths of the projector's layers after the backbone; all with BatchNorm.
        predictor: "mlp"; "fixed", an MLP that keeps its random weights; or "none".
        predictor_hidden: width of the predictor's hidden layer.
        predictor_rate: the predictor's learning rate, in multiples of the run's.
        predictor_constant: keep the predictor's learning rate constant (paper, table 1c).
        stop_gradient: False lets the gradient flow into the target too.
    """

    projector: tuple[int, ...] = (2048, 2048, 2048)
    predictor: Literal["mlp", "fixed", "none"] = "mlp"
    predictor_hidden: int = 512
    predictor_rate: float = 1.0
    predictor_constant: bool = True
    stop_gradient: bool = True


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
    "small": Recipe(
        options=Options(projector=(1024, 1024), predictor_hidden=256), learning_rate=3e-3
    ),
}


@final
class SimSiam(Method):
    """A predictor and a stop-gradient, one network."""

    def __init__(self, backbone: nn.Module, width: int, options: Options) -> None:
        """Build projector and predictor on a backbone of `width` features."""
        rate = Rate(options.predictor_rate, constant=options.predictor_constant)
        super().__init__(backbone, {"predictor": rate})
        self.options = options
        self.projector = mlp((width, *options.projector), output="plain_norm")
        projection = options.projector[-1]
        self.predictor: nn.Module = nn.Identity()
        if options.predictor != "none":
            self.predictor = mlp((projection, options.predictor_hidden, projection))
            self.predictor.requires_grad_(options.predictor == "mlp")

    def embed(self, views: tuple[Tensor, ...]) -> Embeddings:
        """Representation, projection and prediction of each view."""
        h = torch.stack([self.backbone(view) for view in views])
        z = torch.stack([self.projector(each) for each in h])
        return Embeddings(h=h, z=z, p=torch.stack([self.predictor(each) for each in z]))

    def objective(self, e: Embeddings) -> Step:
        """Each prediction towards the other views' projections."""
        assert e.p is not None
        loss = negative_cosine(e.p, e.z.detach() if self.options.stop_gradient else e.z)
        return Step(loss, {"negative_cosine": loss})

    def after_step(self, progress: float) -> None:
        """Nothing moves."""
