"""Radial-VCReg (arXiv 2602.14272): lengths of embeddings as those of a Gaussian."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from noneg.losses.inputs import check_views, in_full_precision


@in_full_precision
def radial_divergence(z: Float[Tensor, "views batch width"]) -> Float[Tensor, ""]:
    """Kullback-Leibler divergence of the lengths of a view's embeddings from a chi distribution.

    The lengths r of a standard Gaussian in d dimensions have a chi distribution. The divergence is

        mean(r^2 / 2 - (d - 1) log r) - entropy of r + (d / 2 - 1) log 2 + log Gamma(d / 2)

    with the entropy from spacings of the sorted lengths of n images, the mean of
    log((n + 1) / m (r_(i+m) - r_(i))), m the rounded root of n (Vasicek 1976). The mean over views.

    Convention: the authors' two terms with equal weights, as in their recipes, and the constant,
    without which it would not be 0 for a Gaussian.

    Args:
        z: embeddings of at least 2 views and 2 images; bfloat16 and float16 become float32.

    Returns:
        About 0 for a Gaussian; the estimate of the entropy is biased, and noisy in small batches.

    Raises:
        NonegError: fewer than 2 views or images.
    """
    check_views("radial_divergence", z)
    batch, width = z.shape[1:]
    lengths: Tensor = torch.linalg.vector_norm(z, dim=2)
    radius = lengths.clamp(min=torch.finfo(z.dtype).tiny ** 0.5)
    cross = (radius.square() / 2 - (width - 1) * radius.log()).mean()
    apart = max(1, round(math.sqrt(batch)))
    ascending = radius.sort(dim=1).values
    # Equal lengths have no spacing; those below rounding say nothing, and get no gradient.
    spacing = (ascending[:, apart:] - ascending[:, :-apart]).clamp(min=1e-12)
    entropy = ((batch + 1) / apart * spacing).log().mean()
    return cross - entropy + (width / 2 - 1) * math.log(2) + math.lgamma(width / 2)
