"""MoCo: Momentum Contrast (He et al., arXiv 1911.05722), version 2 (Chen et al., 2003.04297).

What keeps it from collapsing: negatives. A view must find its image's key among thousands of
earlier keys of other images, which a constant embedding cannot. Contrastive: for comparison.
What it costs: a memory bank, and a second network that moves slowly enough for earlier keys to
remain comparable. In return, the batch may be small.

BatchNorm leaks which batch a query is from: query and key are normalized by statistics of the same
images, keys in the queue are not. The paper shuffles images between GPUs, so that query and key are
normalized among different images. Here BatchNorm sees all processes' images, so no small group of
images leaks, but the whole batch still may. `key_statistics` "running" closes this leak: keys are
normalized by the key network's running statistics, which do not depend on the batch (EMAN: Cai et
al., 2101.08482). They lag behind a network that moves fast, as in short runs, so the small recipe
has "batch".
"""

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from noneg.errors import NonegError
from noneg.losses import info_nce
from noneg.methods.base import Embeddings, Loss, Method, large_views
from noneg.methods.limits import check_options
from noneg.methods.recipe import Recipe
from noneg.methods.traits import Traits
from noneg.networks.heads import mlp
from noneg.networks.norms import batch_norms
from noneg.networks.target import copy_as_target, update_target

TRAITS = Traits(family="contrastive", teacher=True)


@dataclass(frozen=True)
class Options:
    """Version 2: its section 3 and table 1, and section 4 of the first paper.

    Args:
        temperature: divisor of the cosines.
        queue: number of keys; at least as many as the batch has large views. The loss uses as many
            whole batches of them as fit, so that it does not depend on the order within a batch.
        momentum: decay of the key network's moving average per step.
        key_statistics: statistics of the key network's BatchNorm: "running", or of the "batch".
        projector: widths of the projector's layers after the backbone, without BatchNorm.
    """

    temperature: float = 0.2
    queue: int = 65536
    momentum: float = 0.999
    key_statistics: Literal["running", "batch"] = "running"
    projector: tuple[int, ...] = (2048, 128)

    def __post_init__(self) -> None:
        check_options(
            self, counts=("projector", "queue"), positive=("temperature",), shares=("momentum",)
        )


RECIPES = {
    "paper": Recipe(
        options=Options(),
        epochs=200,
        batch_size=256,
        optimizer="sgd",
        learning_rate=0.03,
        weight_decay=1e-4,
        warmup_epochs=0.0,
        views="simsiam",
    ),
    # Short runs need keys that follow faster (0.99 in the authors' code for CIFAR-10).
    "small": Recipe(
        options=Options(queue=4096, momentum=0.99, key_statistics="batch", projector=(1024, 128)),
        batch_size=64,
        optimizer="muon",
        learning_rate=1.6e-2,
    ),
}


@final
class MoCo(Method):
    """Each view finds its image's key among a queue of earlier keys."""

    queue: Tensor
    queue_index: Tensor

    def __init__(self, backbone: nn.Module, width: int, options: Options) -> None:
        """Build projector, key network and queue on a backbone of `width` features."""
        super().__init__(backbone)
        self.options = options
        self.projector = mlp((width, *options.projector), bias=True, hidden_norm=False)
        self.target = copy_as_target(self.backbone, self.projector)
        # Random directions, as in the authors' code: easy negatives, but the loss has its scale
        # from the first step.
        queue = torch.randn(options.queue, options.projector[-1])
        self.register_buffer("queue", normalize(queue, dim=1))
        self.register_buffer("queue_index", torch.full((options.queue,), -1))

    def embed(self, views: tuple[Tensor, ...]) -> Embeddings:
        """Representation and projection of each view, and its key."""
        h = torch.stack([self.backbone(view) for view in views])
        z = torch.stack([self.projector(each) for each in h])
        if self.options.key_statistics == "running":
            for norm in batch_norms(self.target):
                # `measure_statistics` sets the momentum to None while it measures.
                norm.training = norm.momentum is None
        with torch.no_grad():
            t = torch.stack([self.target(view) for view in large_views(views)])
        return Embeddings(h=h, z=z, t=t)

    def objective(self, e: Embeddings) -> Loss:
        """Each query against its key and the queue; then the keys enter the queue."""
        assert e.t is not None
        keys = normalize(e.t.detach(), dim=2)
        targets, batch = keys.shape[:2]
        used = len(self.queue) // (targets * batch) * targets * batch
        if used == 0:
            raise NonegError(
                f"a queue of {len(self.queue)} keys is too short for {targets} views of {batch} "
                f"images: give --options.queue {targets * batch} or more, or a smaller batch"
            )
        index = self.queue_index.new_full((batch,), -1) if e.index is None else e.index
        # With few images, the queue may hold earlier keys of a query's own image.
        own = (index[:, None] == self.queue_index[:used]) & (index[:, None] >= 0)
        terms = info_nce(
            e.z, keys, self.queue[:used], temperature=self.options.temperature, excluded=own
        )
        self.queue = _put_first(keys.flatten(0, 1), self.queue)
        self.queue_index = _put_first(index.repeat(targets), self.queue_index)
        return Loss(terms["info_nce"], terms)

    def after_step(self, progress: float) -> None:
        """Update the key network by a moving average of the query network."""
        update_target(self.target, self.backbone, self.projector, decay=self.options.momentum)


def _put_first(new: Tensor, old: Tensor) -> Tensor:
    return torch.cat([new, old[: len(old) - len(new)]])
