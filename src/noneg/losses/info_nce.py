"""InfoNCE against a queue, MoCo's loss (He et al., arXiv 1911.05722), to compare with."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize, softplus

from noneg.losses.inputs import check_views, in_full_precision


@in_full_precision
def info_nce(
    q: Float[Tensor, "views batch width"],
    k: Float[Tensor, "views batch width"],
    queue: Float[Tensor, "length width"],
    *,
    temperature: float = 0.2,
    excluded: Bool[Tensor, "batch length"] | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """Find a query's key among it and the queue (paper, eq. 1).

    Convention: -log of exp(cos(q, k) / temperature) as a share of its sum with those of the whole
    queue, one in 1 + length. Each view is the query, with each other view's key as its positive;
    the mean over these ordered pairs and over images (the paper has one pair, the authors' code for
    CIFAR-10 the sum of both). The batch's own other images are no negatives. Gradients flow into
    all three: who wants none in keys and queue detaches them.

    Args:
        q: queries, projections of at least 2 views and 2 images; bfloat16 and float16 count as
            float32.
        k: keys of the same views and images.
        queue: earlier keys.
        temperature: tau of the paper, 0.07 in the first and 0.2 in the second (2003.04297).
        excluded: which of the queue are no negatives of an image, because they are its own.

    Returns:
        `info_nce`, >= 0: log(1 + length) where all are alike.

    Raises:
        NonegError: fewer than 2 views or images.
    """
    check_views("info_nce", q)
    q, k, queue = (normalize(each, dim=-1) for each in (q, k, queue))
    positive = torch.einsum("abk,pbk->apb", q, k) / temperature
    others = q @ queue.T / temperature
    if excluded is not None:
        others = others.masked_fill(excluded, -torch.inf)
    negative = others.logsumexp(dim=2)
    different = ~torch.eye(len(q), dtype=torch.bool, device=q.device)
    return {"info_nce": softplus(negative[:, None] - positive)[different].mean()}
