"""The contrastive pair loss (Hadsell, Chopra and LeCun, CVPR 2006), for comparison."""

import torch
from jaxtyping import Float
from torch import Tensor

from noneg.losses.agreement import mean_squared_error
from noneg.losses.inputs import check_views, in_full_precision


@in_full_precision
def contrastive(
    z: Float[Tensor, "views batch width"], *, margin: float = 1.0
) -> dict[str, Float[Tensor, ""]]:
    """The terms of the pair loss; the loss is their sum.

    d^2 for two views of an image, max(0, margin - d)^2 for views of different images, d the
    Euclidean distance (paper, eq. 4).

    Convention: the mean over all pairs of an image's views, plus the mean over all pairs of views
    of different images, including pairs of the same view. The paper sums over the pairs that it is
    given, and both terms have a factor of 1/2. Embeddings are not normalized, so the margin sets
    their scale. A distance of 0 has no gradient: an exactly collapsed batch, whose loss is
    margin^2, stays collapsed.

    Args:
        z: projections of at least 2 views and 2 images; bfloat16 and float16 become float32.
        margin: distance from which different images no longer repel each other, > 0.

    Returns:
        `attraction` in [0, inf) and `repulsion` in [0, margin^2].

    Raises:
        NonegError: fewer than 2 views or images.
    """
    check_views("contrastive", z)
    views, batch, width = z.shape
    flat = z.flatten(0, 1)
    # From differences: |a|^2 + |b|^2 - 2 a.b would lose the digits of small distances.
    distance = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
    image = torch.arange(batch, device=z.device).repeat(views)
    different = image[:, None] != image
    return {
        "attraction": width * mean_squared_error(z),
        "repulsion": torch.relu(margin - distance[different]).square().mean(),
    }
