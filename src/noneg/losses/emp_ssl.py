"""EMP-SSL (Tong et al., arXiv 2304.03977): the coding rate of many patches."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from noneg.losses.coding_rate import coding_rate
from noneg.losses.inputs import check_views, in_full_precision


@in_full_precision
def emp_ssl(
    z: Float[Tensor, "views batch width"], *, invariance: float = 200.0, distortion: float = 0.2
) -> dict[str, Float[Tensor, ""]]:
    """The terms of EMP-SSL; the loss is their sum.

    Convention: the authors' code. Embeddings have length 1. The invariance term is minus the cosine
    of an embedding and the mean of its image's embeddings, averaged over views and images;
    gradients flow into the mean too. The coding rate of each view's batch is maximized.

    Args:
        z: projections of at least 2 views and 2 images; bfloat16 and float16 become float32.
        invariance: weight of the cosines; lambda in the paper.
        distortion: epsilon squared of the coding rate.

    Returns:
        `invariance`, in [-invariance, invariance]; `coding_rate`, minus the mean over views, < 0,
        and at least -(m / 2) log(1 + width / (m distortion)), m the smaller of batch and width.

    Raises:
        NonegError: fewer than 2 views or images.
    """
    check_views("emp_ssl", z)
    unit = normalize(z, dim=2)
    cosines = cosine_similarity(unit, unit.mean(dim=0, keepdim=True), dim=2)
    rates = torch.stack([coding_rate(view, distortion=distortion) for view in unit])
    return {"invariance": -invariance * cosines.mean(), "coding_rate": -rates.mean()}
