"""MoCo: Momentum Contrast (He et al., arXiv 1911.05722), version 2 (Chen et al., 2003.04297).

What keeps it from collapsing: negatives. A view must find its image's key among thousands of other
images' earlier keys, which a constant embedding cannot. Contrastive: here to compare with.
What it costs: a memory bank, and a second network that moves slowly enough for keys of some steps
ago to compare with today's. In return the batch may be small.

BatchNorm lets a query know its own batch: query and key share the statistics of the same images,
which no key in the queue does. On several GPUs the paper shuffles images between them, so that
query and key are normalized in different company. Here BatchNorm sees all processes' images, so
that no small company gives a query away, but the batch as a whole still may. `key_statistics`:
"running" closes that: keys are normalized by the key network's running statistics, which carry
nothing of the batch (EMAN: Cai et al., 2101.08482). They lag behind a network that moves fast, as
in short runs, so the small recipe has "batch".
"""

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from noneg.errors import NonegError
from noneg.losses import info_nce
from noneg.methods.base import Embeddings, Loss, Method
from noneg.methods.recipe import Recipe
from noneg.networks.heads import mlp
from noneg.networks.norms import batch_norms
from noneg.networks.target import copy_as_target, update_target


@dataclass(frozen=True)
class Options:
    """Version 2: section 3 and table 1 there, section 4 of the first paper.

    Args:
        temperature: what cosines are divided by.
        queue: how many keys are kept; at least as many as the batch has views. It uses whole
            batches of them, so that what falls out does not depend on an order within a batch.
        momentum: what the key network keeps of itself a step.
        key_statistics: what BatchNorm in the key network normalizes by: "running" statistics, or
            those of the "batch".
        projector: widths of the projector's layers after the backbone, without BatchNorm.
    """

    temperature: float = 0.2
    queue: int = 65536
    momentum: float = 0.999
    key_statistics: Literal["running", "batch"] = "running"
    projector: tuple[int, ...] = (2048, 128)


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
    # Short runs need keys that follow sooner (0.99 in the authors' code for CIFAR-10).
    "small": Recipe(
        options=Options(queue=4096, momentum=0.99, key_statistics="batch", projector=(1024, 128)),
        learning_rate=3e-3,
    ),
}


@final
class MoCo(Method):
    """Each view's key, among a queue of earlier keys."""

    queue: Tensor
    queue_index: Tensor

    def __init__(self, backbone: nn.Module, width: int, options: Options) -> None:
        """Build projector, key network and queue on a backbone of `width` features."""
        super().__init__(backbone)
        self.options = options
        self.projector = mlp((width, *options.projector), bias=True, hidden_norm=False)
        self.target = copy_as_target(self.backbone, self.projector)
        # Random directions, as in the authors' code: easy negatives, but the loss is on one scale
        # from the first step on.
        queue = torch.randn(options.queue, options.projector[-1])
        self.register_buffer("queue", normalize(queue, dim=1))
        self.register_buffer("queue_index", torch.full((options.queue,), -1))

    def embed(self, views: tuple[Tensor, ...]) -> Embeddings:
        """Representation and projection of each view, and its key."""
        h = torch.stack([self.backbone(view) for view in views])
        z = torch.stack([self.projector(each) for each in h])
        if self.options.key_statistics == "running":
            for norm in batch_norms(self.target):
                # No momentum means that they are being measured just now (`norms.py`).
                norm.training = norm.momentum is None
        with torch.no_grad():
            t = torch.stack([self.target(view) for view in views])
        return Embeddings(h=h, z=z, t=t)

    def objective(self, e: Embeddings) -> Loss:
        """Each query with its key and the queue, into which the keys then go."""
        assert e.t is not None
        keys = normalize(e.t.detach(), dim=2)
        views, batch = keys.shape[:2]
        used = len(self.queue) // (views * batch) * views * batch
        if used == 0:
            raise NonegError(
                f"a queue of {len(self.queue)} keys is too short for {views} views of {batch} "
                f"images: give --options.queue {views * batch} at least, or a smaller batch"
            )
        index = self.queue_index.new_full((batch,), -1) if e.index is None else e.index
        # Where images are few, the queue holds a query's own image.
        own = (index[:, None] == self.queue_index[:used]) & (index[:, None] >= 0)
        terms = info_nce(
            e.z, keys, self.queue[:used], temperature=self.options.temperature, excluded=own
        )
        self.queue = _put_first(keys.flatten(0, 1), self.queue)
        self.queue_index = _put_first(index.repeat(views), self.queue_index)
        return Loss(terms["info_nce"], terms)

    def after_step(self, progress: float) -> None:
        """Move the key network towards the query network."""
        update_target(self.target, self.backbone, self.projector, decay=self.options.momentum)


def _put_first(new: Tensor, old: Tensor) -> Tensor:
    return torch.cat([new, old[: len(old) - len(new)]])
