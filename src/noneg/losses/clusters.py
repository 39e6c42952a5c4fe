"""Agreement of cluster assignments: SwAV (arXiv 2006.09882) and DINO (2104.14294)."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from noneg.losses.inputs import check_views, in_full_precision


@in_full_precision
def swapped_cross_entropy(
    assignments: Float[Tensor, "targets batch clusters"],
    scores: Float[Tensor, "views batch clusters"],
    *,
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """-sum_k q_wk log softmax(scores_v / temperature)_k, over pairs of a target w and another view.

    Convention: the mean over the batch and over these pairs; targets are of the first views.
    Gradients flow into the scores alone, once. Range [0, inf); log(clusters) if scores are equal.
    """
    loss: Tensor = _SwappedCrossEntropy.apply(assignments, scores, temperature)
    return loss


@in_full_precision
@torch.no_grad()
def sinkhorn(
    scores: Float[Tensor, "*targets batch clusters"],
    *,
    epsilon: float = 0.05,
    iterations: int = 3,
) -> Float[Tensor, "*targets batch clusters"]:
    """Assignments q of images to clusters of equal size: balanced exp(scores / epsilon).

    Clusters and images are scaled in turn (SwAV, eq. 5), images last. Each view is balanced by
    itself. A score that is more than 80 epsilon below its cluster's largest counts as that, for the
    range of float32: cosines are nearer, down to an epsilon of 0.025.

    Args:
        scores: cosines of embeddings and prototypes.
        epsilon: larger ones give softer assignments.
        iterations: how often clusters and images are scaled.

    Returns:
        Rows that add up to 1; columns add up to about batch / clusters.
    """
    shares = scores.new_empty(scores.shape)
    matrices = (-1, *scores.shape[-2:])
    for view, share in zip(scores.reshape(matrices), shares.view(matrices), strict=True):
        torch.sub(view, view.amax(dim=0), out=share).div_(epsilon).clamp_(min=-80).exp_()
        for _ in range(iterations):
            share.div_(share.sum(dim=0)).div_(share.sum(dim=1, keepdim=True))
    return shares


@in_full_precision
@torch.no_grad()
def assignment_entropies(
    assignments: Float[Tensor, "targets batch clusters"],
) -> tuple[float, float]:
    """Entropy of an image's assignment, and of the mean assignment, as shares of the largest.

    1, 1 if every image is assigned to all clusters alike; 0, 0 if all are in one cluster; near 0, 1
    if each is in one cluster and all clusters are used. The mean over targets.
    """
    largest = math.log(max(2, assignments.shape[2]))
    # View by view: with many clusters, all of them at once take much memory.
    of_images = [torch.special.entr(each).sum(dim=1).mean() for each in assignments]
    of_means = [torch.special.entr(each.mean(dim=0)).sum() for each in assignments]
    image, mean = (float(torch.stack(each).mean()) / largest for each in (of_images, of_means))
    return image, mean


@in_full_precision
def swav(
    scores: Float[Tensor, "views batch clusters"],
    targets: Float[Tensor, "targets batch clusters"],
    *,
    temperature: float = 0.1,
    epsilon: float = 0.05,
    iterations: int = 3,
    queue: Float[Tensor, "earlier clusters"] | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """Each view predicts the balanced assignments of the large views (paper, eq. 2).

    Convention: the authors' code: the mean over large views, over all other views, and over images.

    Args:
        scores: cosines of embeddings and prototypes, of at least 2 views and 2 images; bfloat16 and
            float16 become float32.
        targets: scores of the first views; no gradient flows into them.
        temperature: tau of the softmax.
        epsilon: of `sinkhorn`: larger ones give softer assignments.
        iterations: of `sinkhorn`.
        queue: scores of earlier embeddings. Each view is balanced together with them, but only its
            own assignments are predicted.

    Returns:
        `swav` >= 0; log(clusters) for equal scores.

    Raises:
        NonegError: fewer than 2 views or images.
    """
    check_views("swav", scores)
    balanced = targets.detach()
    if queue is not None:
        balanced = torch.cat([balanced, queue.detach().expand(len(targets), -1, -1)], dim=1)
    assignments = sinkhorn(balanced, epsilon=epsilon, iterations=iterations)
    assignments = assignments[:, : targets.shape[1]]
    return {"swav": swapped_cross_entropy(assignments, scores, temperature=temperature)}


@in_full_precision
def dino(
    scores: Float[Tensor, "views batch clusters"],
    targets: Float[Tensor, "targets batch clusters"],
    center: Float[Tensor, "clusters"],
    *,
    temperature: float = 0.1,
    target_temperature: float = 0.04,
) -> dict[str, Float[Tensor, ""]]:
    """Each view predicts the teacher's softmax of the large views (paper, eq. 2 and 3).

    Convention: the authors' code: cross-entropy of softmax((targets - center) /
    target_temperature) and softmax(scores / temperature), the mean over large views, over all other
    views, and over images.

    Args:
        scores: of the student, of at least 2 views and 2 images; bfloat16 and float16 become
            float32.
        targets: scores of the teacher, of the first views; no gradient flows into them.
        center: subtracted from the targets.
        temperature: of the student.
        target_temperature: of the teacher; lower ones are sharper.

    Returns:
        `dino` >= 0; log(clusters) for equal scores.

    Raises:
        NonegError: fewer than 2 views or images.
    """
    check_views("dino", scores)
    shares = ((targets.detach() - center) / target_temperature).softmax(dim=2)
    return {"dino": swapped_cross_entropy(shares, scores, temperature=temperature)}


class _SwappedCrossEntropy(torch.autograd.Function):
    """Views are processed one by one, because fresh memory costs more time than arithmetic here."""

    @staticmethod
    def forward(ctx: Any, assignments: Tensor, scores: Tensor, temperature: float) -> Tensor:
        targets, views = len(assignments), len(scores)
        log_shares = [(view / temperature).log_softmax(dim=1) for view in scores]
        wanted = list(_of_other_views(assignments, views))
        pairs = targets * views - min(targets, views)
        ctx.mean, ctx.temperature = 1 / (pairs * scores.shape[1]), temperature
        ctx.save_for_backward(*log_shares, *wanted)
        scratch = torch.empty_like(log_shares[0])
        each = [
            torch.mul(*pair, out=scratch).sum() for pair in zip(wanted, log_shares, strict=True)
        ]
        loss: Tensor = torch.stack(each).sum() * -ctx.mean
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None]:
        saved = ctx.saved_tensors
        log_shares, wanted = saved[: len(saved) // 2], saved[len(saved) // 2 :]
        gradient: Tensor = log_shares[0].new_empty(len(wanted), *log_shares[0].shape)
        scale = gradients[0] * (ctx.mean / ctx.temperature)
        for pulled, log_share, others in zip(gradient, log_shares, wanted, strict=True):
            torch.exp(log_share, out=pulled).mul_(others.sum(dim=1, keepdim=True))
            pulled.sub_(others).mul_(scale)
        return None, gradient, None


def _of_other_views(assignments: Tensor, views: int) -> Iterator[Tensor]:
    """For each view, the sum of the targets that are of other views."""
    targets = list(assignments)
    for view in range(len(targets)):
        others = targets[:view] + targets[view + 1 :]
        yield sum(others[1:], others[0]) if others else torch.zeros_like(targets[0])
    if views > len(targets):
        total = assignments.sum(dim=0)
        yield from [total] * (views - len(targets))
