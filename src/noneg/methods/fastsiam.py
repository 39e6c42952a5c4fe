"""FastSiam: Resource-Efficient Self-supervised Learning on a Single GPU (Pototzky et al. 2022).

What keeps it from collapsing: SimSiam's predictor and stop-gradient. Each prediction is compared
with the mean of the projections of all other views, which is a steadier target than one of them, so
that smaller batches do. With two views it is SimSiam.
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from noneg.losses.inputs import check_views
from noneg.methods.base import Embeddings, Loss, Method, Rate, means_of_others, own_targets
from noneg.methods.limits import check_options
from noneg.methods.recipe import Recipe
from noneg.methods.traits import Traits
from noneg.networks.heads import mlp

TRAITS = Traits(family="online-target", predictor=True, more_views=True)


@dataclass(frozen=True)
class Options:
    """SimSiam's heads.

    Args:
        projector: widths of the projector's layers after the backbone; all with BatchNorm.
        predictor_hidden: width of the predictor's hidden layer.
        predictor_rate: the predictor's learning rate, in multiples of the run's.
        predictor_constant: keep the predictor's learning rate constant.
    """

    projector: tuple[int, ...] = (2048, 2048, 2048)
    predictor_hidden: int = 512
    predictor_rate: float = 1.0
    predictor_constant: bool = True

    def __post_init__(self) -> None:
        check_options(self, counts=("projector", "predictor_hidden"), weights=("predictor_rate",))


RECIPES = {
    # Rate and length are SimSiam's; the paper trains with batches of 32.
    "paper": Recipe(
        options=Options(),
        epochs=100,
        batch_size=32,
        optimizer="sgd",
        learning_rate=0.05,
        weight_decay=1e-4,
        warmup_epochs=0.0,
        views="simsiam",
        num_views=4,
    ),
    # Not tuned: SimSiam's settings.
    "small": Recipe(
        options=Options(projector=(1024, 1024), predictor_hidden=256),
        batch_size=64,
        optimizer="muon",
        learning_rate=8e-3,
        weight_decay=0.05,
        num_views=4,
    ),
}


@final
class FastSiam(Method):
    """One network, with a predictor and the mean of the other views as target."""

    def __init__(self, backbone: nn.Module, width: int, options: Options) -> None:
        """Build projector and predictor on a backbone of `width` features."""
        rate = Rate(options.predictor_rate, constant=options.predictor_constant)
        super().__init__(backbone, {"predictor": rate})
        self.options = options
        self.projector = mlp((width, *options.projector), output="plain_norm")
        projection = options.projector[-1]
        self.predictor = mlp((projection, options.predictor_hidden, projection))

    def embed(self, views: tuple[Tensor, ...]) -> Embeddings:
        """Representation, projection and prediction of each view; targets are of large views."""
        h = torch.stack([self.backbone(view) for view in views])
        z = torch.stack([self.projector(each) for each in h])
        p = torch.stack([self.predictor(each) for each in z])
        return Embeddings(h=h, z=z, p=p, t=own_targets(z.detach(), views))

    def objective(self, e: Embeddings) -> Loss:
        """-cos of each prediction and the mean of the other large views, not normalized."""
        assert e.p is not None
        t = (e.z if e.t is None else e.t).detach()
        check_views("fastsiam", t)
        loss = -cosine_similarity(e.p, means_of_others(t, len(e.p)), dim=-1).mean()
        return Loss(loss, {"negative_cosine": loss})
