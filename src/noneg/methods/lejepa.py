"""LeJEPA: Provable and Scalable Self-Supervised Learning (Balestriero and LeCun, 2511.08544).

What keeps it from collapsing: embeddings are pulled to a standard Gaussian, in all directions at
once (SIGReg), so no direction may be constant, or repeat another. No negatives, no predictor, no
stop-gradient, no moving average. The pull vanishes at an exact collapse, and a few dead directions
cost little: about 0.24 (1/r - 1/d) if r of d are alive.

`statistic` "sphere" asks for the uniform distribution on the sphere instead (SPHERE-JEPA, arXiv
2605.26900; this statistic, without random directions, is of 2606.17603). It needs no exponentials,
and dead directions cost 1/r - 1/d, so a quarter of the weight pulls alike.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from noneg.losses import distance_to_mean, sigreg, sphere_discrepancy
from noneg.losses.inputs import check_views
from noneg.methods.base import Embeddings, Loss, Method, own_targets
from noneg.methods.limits import check_options
from noneg.methods.recipe import Recipe
from noneg.methods.traits import Traits
from noneg.networks.heads import mlp

TRAITS = Traits(family="distribution matching")


@dataclass(frozen=True)
class Options:
    """The authors' minimal example (MINIMAL.md of rbalestr-lab/lejepa): lambda = 0.02, batch 256.

    `noneg.losses.lejepa_weights` translates the weights from other conventions.

    Args:
        invariance: weight of the squared distance of each view from the mean of the large views.
        sigreg: weight of SIGReg, which does not grow with the batch: the authors' lambda times the
            batch. With "sphere", the weight of that statistic, which is 1 for a collapse.
        statistic: "gaussian" is SIGReg. "sphere" is the distance from the uniform distribution on
            the sphere, of embeddings scaled to the length sqrt(width), a Gaussian's.
        slices: number of random directions per step, as in the authors' code (256); by default, all
            directions, in closed form. For the Gaussian alone.
        projector: widths of the projector's layers after the backbone.
    """

    invariance: float = 0.98
    sigreg: float = 5.12
    statistic: Literal["gaussian", "sphere"] = "gaussian"
    slices: int | None = None
    projector: tuple[int, ...] = (2048, 2048, 16)

    def __post_init__(self) -> None:
        check_options(self, counts=("projector", "slices"), weights=("invariance", "sigreg"))


RECIPES = {
    # The example's views also have solarization, and its learning rate ends at half. It decays
    # biases and norms too, and drops a tenth of the transformer's paths.
    "paper": Recipe(
        options=Options(),
        epochs=800,
        batch_size=256,
        optimizer="adamw",
        learning_rate=2e-3,
        weight_decay=5e-2,
        views="simclr",
        num_views=4,
    ),
    # Not tuned: VICReg's settings.
    "small": Recipe(
        options=Options(invariance=1.0, sigreg=10.0, projector=(1024, 64)),
        batch_size=64,
        optimizer="muon",
        learning_rate=1.6e-2,
    ),
}


def causes(state: str, options: Options, batch_size: int | None) -> Iterator[str]:
    """The weight of the statistic is 0."""
    if options.sigreg == 0:
        yield "nothing keeps the embeddings apart: give an --options.sigreg above 0"


@final
class LeJEPA(Method):
    """Agreement, and embeddings that are a standard Gaussian."""

    def __init__(self, backbone: nn.Module, width: int, options: Options) -> None:
        """Build the projector on a backbone of `width` features."""
        super().__init__(backbone)
        self.options = options
        self.projector = mlp((width, *options.projector), bias=False)

    def embed(self, views: tuple[Tensor, ...]) -> Embeddings:
        """Representation and projection of each view; `t` has the large ones if not all are."""
        h = torch.stack([self.backbone(view) for view in views])
        z = torch.stack([self.projector(each) for each in h])
        return Embeddings(h=h, z=z, t=own_targets(z.detach(), views))

    def objective(self, e: Embeddings) -> Loss:
        """Invariance, and the statistic of each view, on the whole batch."""
        check_views("lejepa", e.z)
        large = None if e.t is None else len(e.t)
        if self.options.statistic == "sphere":
            z = normalize(e.z, dim=2) * e.z.shape[2] ** 0.5
            name, value = "sphere", sphere_discrepancy(z)
        else:
            z, name, value = e.z, "sigreg", sigreg(e.z, slices=self.options.slices)
        terms = {
            "invariance": self.options.invariance * distance_to_mean(z, large=large),
            name: self.options.sigreg * value,
        }
        return Loss(terms["invariance"] + terms[name], terms)
