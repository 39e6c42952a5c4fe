"""SimSiam as an alternation (Chen and He, arXiv 2011.10566, section 5), without a predictor.

Each image has its own target eta, and two steps alternate: the network is trained towards the
targets, and the targets are estimated again from the network. What keeps it from collapsing is not
explained; the paper finds that a moving average of eta can replace the predictor (appendix A).
"""

from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from noneg.losses.inputs import check_views
from noneg.methods.base import Embeddings, Loss, Method, means_of_others, own_targets
from noneg.methods.limits import check_options
from noneg.methods.recipe import Recipe
from noneg.methods.traits import Traits
from noneg.networks.heads import mlp

TRAITS = Traits(family="online-target")


@dataclass(frozen=True)
class Options:
    """Paper, section 5.2.

    Args:
        projector: widths of the projector's layers after the backbone; all with BatchNorm.
        eta: each image's target: "average", a moving average over the epochs; or "views", the mean
            of the image's other views in this step, of which there should be several.
        momentum: decay of eta per epoch.
    """

    projector: tuple[int, ...] = (2048, 2048, 2048)
    eta: Literal["average", "views"] = "average"
    momentum: float = 0.8

    def __post_init__(self) -> None:
        check_options(self, counts=("projector",), shares=("momentum",))


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
        options=Options(projector=(1024, 1024)),
        batch_size=64,
        optimizer="muon",
        learning_rate=8e-3,
        weight_decay=0.05,
    ),
}


@final
class SimSiamEM(Method):
    """A network, and a moving target for each image."""

    eta: Tensor
    seen: Tensor

    def __init__(self, backbone: nn.Module, width: int, options: Options) -> None:
        """Build the projector on a backbone of `width` features."""
        super().__init__(backbone)
        self.options = options
        self.projector = mlp((width, *options.projector), output="plain_norm")
        # They grow with the images seen, because their number is not known here.
        self.register_buffer("eta", torch.zeros(0, options.projector[-1]))
        self.register_buffer("seen", torch.zeros(0, dtype=torch.bool))
        self.register_load_state_dict_pre_hook(_make_room)  # type: ignore[no-untyped-call]

    def embed(self, views: tuple[Tensor, ...]) -> Embeddings:
        """Representation and projection of each view; targets are of large views."""
        h = torch.stack([self.backbone(view) for view in views])
        z = torch.stack([self.projector(each) for each in h])
        return Embeddings(h=h, z=z, t=own_targets(z.detach(), views))

    def objective(self, e: Embeddings) -> Loss:
        """Each view against its image's eta, averaged with its other views; updates eta."""
        t = (e.z if e.t is None else e.t).detach()
        check_views("simsiam_em", t)
        targets = means_of_others(t, len(e.z))
        if self.options.eta == "average" and e.index is not None:
            targets = self._average(targets, t.mean(dim=0), e.index.to(t.device))
        loss = -cosine_similarity(e.z, targets, dim=-1).mean()
        return Loss(loss, {"negative_cosine": loss})

    def _average(self, targets: Tensor, mean: Tensor, index: Tensor) -> Tensor:
        """The targets averaged with eta; then updates eta (paper, appendix A)."""
        missing = int(index.max()) + 1 - len(self.eta)
        if missing > 0:
            self.eta = torch.cat([self.eta, self.eta.new_zeros(missing, self.eta.shape[1])])
            self.seen = torch.cat([self.seen, self.seen.new_zeros(missing)])
        momentum = self.options.momentum * self.seen[index].to(targets.dtype)[:, None]
        before = self.eta[index].to(targets.dtype)
        self.eta[index] = (momentum * before + (1 - momentum) * mean).to(self.eta.dtype)
        self.seen[index] = True
        return momentum * before + (1 - momentum) * targets


def _make_room(
    module: nn.Module, state_dict: dict[str, Any], prefix: str, *_unused: object
) -> None:
    """Resize the buffers: a checkpoint may hold more images than were seen so far."""
    assert isinstance(module, SimSiamEM)
    for name in ("eta", "seen"):
        saved = state_dict.get(prefix + name)
        if saved is not None:
            buffer = getattr(module, name)
            setattr(module, name, buffer.new_zeros(saved.shape))
