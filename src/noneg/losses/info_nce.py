"""InfoNCE against a queue, MoCo's loss (He et al., arXiv 1911.05722), for comparison."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize, softplus

from noneg.losses.inputs import check_views, in_full_precision


@in_full_precision
def info_nce(
    q: Float[Tensor, "views batch width"],
    k: Float[Tensor, "targets batch width"],
    queue: Float[Tensor, "length width"],
    *,
    temperature: float = 0.2,
    excluded: Bool[Tensor, "batch length"] | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """Cross-entropy of a query's own key against the keys in the queue (paper, eq. 1).

    Convention: -log of the softmax of cos(q, k) / temperature over the query's key and the whole
    queue, 1 + length entries. Each view is a query, with the key of each other view as its
    positive; the mean over these ordered pairs and over images (the paper has one pair, the
    authors' code for CIFAR-10 the sum of both). Other images of the batch are not negatives.
    Gradients flow into all three arguments: detach the keys and the queue for none in these.

    Args:
        q: queries, projections of at least 2 views and 2 images; bfloat16 and float16 become
            float32.
        k: keys of the same images and views, or of the first views alone.
        queue: earlier keys.
        temperature: tau of the paper, 0.07 in the first and 0.2 in the second (2003.04297).
        excluded: True for keys of the queue that are not negatives of an image, because they are
            its own.

    Returns:
        `info_nce`, >= 0; log(1 + length) if all embeddings are equal.

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
    different = ~torch.eye(len(q), len(k), dtype=torch.bool, device=q.device)
    return {"info_nce": softplus(negative[:, None] - positive)[different].mean()}
