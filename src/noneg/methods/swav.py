"""SwAV: Unsupervised Learning by Contrasting Cluster Assignments (Caron et al., 2006.09882).

What keeps it from collapsing: images are assigned to clusters of equal size over the batch, so they
cannot all be in one. Each view predicts the clusters of the large views. No negatives, no
predictor, no second network.

The batch should not be much smaller than the number of clusters: the authors train with 4096 images
and 3000 clusters. For batches of 256 they add a queue of earlier embeddings, which are balanced
with the batch's (scripts/swav_400ep_bs256_pretrain.sh); it is an option here. They have a queue for
each large view and process; here one queue holds those of all large views and processes.

The sign of its own failure: assignments that are the same for all images, because their embeddings
are, or because `epsilon` is large beside the differences between cosines.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from noneg.errors import NonegError
from noneg.losses import assignment_entropies, sinkhorn, swav
from noneg.methods.base import Embeddings, Failure, Loss, Method, own_targets
from noneg.methods.limits import check_options
from noneg.methods.recipe import Recipe
from noneg.methods.traits import Traits
from noneg.networks.heads import Prototypes, mlp

TRAITS = Traits(family="clustering", large_batch=True)


@dataclass(frozen=True)
class Options:
    """The authors' code.

    Args:
        prototypes: number of clusters.
        temperature: of the predicted clusters.
        epsilon: of the assignments: larger ones are softer.
        iterations: of the balancing of clusters and images.
        fixed: share of the run at its start in which prototypes are not trained; the authors have
            313 steps.
        queue: number of earlier embeddings that are balanced with the batch's: as many whole
            batches as fit; 0 for none. The authors have 3840 at a batch of 256.
        queue_from: share of the run after which the queue is used, as soon as it is full; the
            authors have 15 of 400 epochs.
        projector: widths of the projector's layers after the backbone.
    """

    prototypes: int = 3000
    temperature: float = 0.1
    epsilon: float = 0.05
    iterations: int = 3
    fixed: float = 0.001
    queue: int = 0
    queue_from: float = 0.0375
    projector: tuple[int, ...] = (2048, 128)

    def __post_init__(self) -> None:
        check_options(
            self,
            counts=("projector", "prototypes", "iterations"),
            positive=("temperature", "epsilon"),
            weights=("queue",),
            shares=("fixed", "queue_from"),
        )


RECIPES = {
    # The authors have LARS and a rate of 4.8 at a batch of 4096. The crops' areas are DINO's.
    "paper": Recipe(
        options=Options(),
        epochs=800,
        batch_size=4096,
        optimizer="lars",
        learning_rate=0.3,
        weight_decay=1e-6,
        warmup_epochs=10.0,
        views="multi_crop",
    ),
    # Not tuned: VICReg's settings.
    "small": Recipe(
        options=Options(prototypes=64, fixed=0.01, projector=(1024, 128)),
        batch_size=64,
        optimizer="muon",
        learning_rate=1.6e-2,
    ),
}


UNIFORM = 0.98
"""Share of the largest entropy above which an assignment says nothing."""


def failure(row: Mapping[str, float], options: Options) -> Failure | None:
    """Every image is assigned to all clusters alike."""
    if row.get("target_entropy", 0) <= UNIFORM:
        return None
    return Failure(
        "not learning",
        "Each image is assigned to all clusters alike (entropy of an assignment "
        f"{row['target_entropy']:.3f} of the largest), so there is nothing to predict.",
    )


def causes(state: str, options: Options, batch_size: int | None) -> Iterator[str]:
    """Assignments are soft."""
    if options.epsilon > options.temperature:
        yield (
            f"assignments are softer than predictions, with an epsilon of {options.epsilon:g}: "
            "--options.epsilon 0.05"
        )


@final
class SwAV(Method):
    """Each view predicts the cluster of another one."""

    progress: Tensor
    queue: Tensor

    def __init__(self, backbone: nn.Module, width: int, options: Options) -> None:
        """Build projector and prototypes on a backbone of `width` features."""
        super().__init__(backbone)
        self.options = options
        self.projector = mlp((width, *options.projector))
        self.prototypes = Prototypes(options.projector[-1], options.prototypes)
        self.register_buffer("progress", torch.zeros(()))
        if options.queue:
            # No embedding of length 1 is 0, so rows of zeros are free.
            self.register_buffer("queue", torch.zeros(options.queue, options.projector[-1]))

    def embed(self, views: tuple[Tensor, ...]) -> Embeddings:
        """Representation, projection of length 1 and cosines with the prototypes of each view."""
        h = torch.stack([self.backbone(view) for view in views])
        z = torch.stack([normalize(self.projector(each), dim=1) for each in h])
        fixed = bool(self.progress < self.options.fixed)
        p = torch.stack([self.prototypes(each, fixed=fixed) for each in z])
        return Embeddings(h=h, z=z, p=p, t=own_targets(p.detach(), views))

    def objective(self, e: Embeddings) -> Loss:
        """Assignments over the whole batch and the queue, and their cross-entropy.

        Raises:
            NonegError: the queue is shorter than the large views of a batch.
        """
        assert e.p is not None
        targets = e.p if e.t is None else e.t
        terms = swav(
            e.p,
            targets,
            temperature=self.options.temperature,
            epsilon=self.options.epsilon,
            iterations=self.options.iterations,
            queue=self._earlier_scores(e, len(targets)) if self.options.queue else None,
        )
        return Loss(terms["swav"], terms)

    @torch.no_grad()
    def _earlier_scores(self, e: Embeddings, targets: int) -> Tensor | None:
        """Scores of the queue, or None if it is not used yet; then this batch enters it."""
        new = e.z[:targets].flatten(0, 1).to(self.queue.dtype)
        used = len(self.queue) // len(new) * len(new)
        if used == 0:
            raise NonegError(
                f"a queue of {len(self.queue)} embeddings is too short for {targets} large views "
                f"of {e.z.shape[1]} images: give --options.queue {len(new)} or more, or 0"
            )
        earlier = self.queue[:used]
        self.queue = torch.cat([new, self.queue[: len(self.queue) - len(new)]])
        if self.progress < self.options.queue_from or not earlier[-1].any():
            return None
        scores: Tensor = self.prototypes(earlier).to(e.z.dtype)
        return scores

    def meters(self, e: Embeddings) -> dict[str, float]:
        """The entropy of the batch's assignments, without the queue; 1 if they say nothing."""
        assert e.p is not None
        targets = e.p if e.t is None else e.t
        assigned = sinkhorn(
            targets, epsilon=self.options.epsilon, iterations=self.options.iterations
        )
        return {"target_entropy": assignment_entropies(assigned)[0]}

    def begin_again(self) -> None:
        """Forget how far the last run was."""
        self.progress.zero_()

    def after_step(self, progress: float) -> None:
        """Remember how far the run is."""
        self.progress.fill_(progress)
