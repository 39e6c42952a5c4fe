"""The contrastive pair loss (Hadsell, Chopra and LeCun, CVPR 2006), to compare with."""

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
    of different images, the same view or not. The paper adds up the pairs it was given and has a
    factor of 1/2 on either term. Embeddings are taken as they are, so that the margin sets their
    scale. Where d = 0 it has no direction, and the pair pulls nowhere: a batch that has collapsed
    exactly, at loss margin^2, stays.

    Args:
        z: projections of at least 2 views and 2 images; bfloat16 and float16 count as float32.
        margin: how far apart different images shall be, > 0.

    Returns:
        `attraction` in [0, inf) and `repulsion` in [0, margin^2].

    Raises:
        NonegError: fewer than 2 views or images.
    """
    check_views("contrastive", z)
    views, batch, width = z.shape
    flat = z.flatten(0, 1)
    # By differences: |a|^2 + |b|^2 - 2 a.b would lose the digits of small distances.
    distance = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
    image = torch.arange(batch, device=z.device).repeat(views)
    different = image[:, None] != image
    return {
        "attraction": width * mean_squared_error(z),
        "repulsion": torch.relu(margin - distance[different]).square().mean(),
    }
