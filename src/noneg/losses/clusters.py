"""Agreement of cluster assignments: SwAV (arXiv 2006.09882) and DINO (2104.14294)."""

import torch
from jaxtyping import Float
from torch import Tensor

from noneg.losses.inputs import check_views, in_full_precision


@in_full_precision
def swapped_cross_entropy(
    assignments: Float[Tensor, "targets batch clusters"],
    logits: Float[Tensor, "views batch clusters"],
) -> Float[Tensor, ""]:
    """-sum_k q_wk log softmax(logits_v)_k, over pairs of a target w and a different view v.

    Convention: the mean over the batch and over these pairs; targets are of the first views.
    Gradients flow into the logits alone. Range [0, inf); log(clusters) if the logits are equal.
    """
    targets, batch = assignments.shape[:2]
    log_share = logits.log_softmax(dim=2)
    entropy = -torch.einsum("wbk,vbk->wv", assignments.detach(), log_share) / batch
    different = 1 - torch.eye(targets, len(logits), device=logits.device, dtype=logits.dtype)
    return (entropy * different).sum() / different.sum()


@in_full_precision
@torch.no_grad()
def sinkhorn(
    scores: Float[Tensor, "batch clusters"], *, epsilon: float = 0.05, iterations: int = 3
) -> Float[Tensor, "batch clusters"]:
    """Assignments q of images to clusters of equal size: balanced exp(scores / epsilon).

    Clusters and images are scaled in turn (SwAV, eq. 5), images last. Computed with
    logarithms: exp(1 / 0.05) has no place in float16.

    Returns:
        Rows that add up to 1; columns add up to about batch / clusters.
    """
    log_share = scores / epsilon
    for _ in range(iterations):
        log_share = log_share.log_softmax(dim=0).log_softmax(dim=1)
    return log_share.exp()


@in_full_precision
def swav(
    scores: Float[Tensor, "views batch clusters"],
    targets: Float[Tensor, "targets batch clusters"],
    *,
    temperature: float = 0.1,
    epsilon: float = 0.05,
    iterations: int = 3,
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

    Returns:
        `swav` >= 0; log(clusters) for equal scores.

    Raises:
        NonegError: fewer than 2 views or images.
    """
    check_views("swav", scores)
    assignments = torch.stack(
        [sinkhorn(each, epsilon=epsilon, iterations=iterations) for each in targets.detach()]
    )
    return {"swav": swapped_cross_entropy(assignments, scores / temperature)}


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
    return {"dino": swapped_cross_entropy(shares, scores / temperature)}
