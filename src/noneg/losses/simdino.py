"""SimDINO (Wu et al., arXiv 2502.10385): agreement with a teacher, and a large coding rate."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from noneg.losses.agreement import mean_product
from noneg.losses.coding_rate import coding_rate
from noneg.losses.inputs import check_views, in_full_precision


@in_full_precision
def simdino(
    z: Float[Tensor, "views batch width"],
    t: Float[Tensor, "targets batch width"],
    *,
    distortion: float = 0.4,
) -> dict[str, Float[Tensor, ""]]:
    """The terms of SimDINO; the loss is their sum.

    Convention: the authors' code on one process. Embeddings have length 1. `agreement` is minus the
    cosine of a large view's target and another view. `coding_rate` is minus gamma R, with R the
    coding rate of the mean of embedding and target of a large view, which has half a gradient, and
    gamma = (width + n) / (width n); the mean over large views. With W processes, the authors' code
    uses the covariance of one process's images, but the divisor of all: its `distortion` of 0.05 on
    8 processes is one of 0.4 here.

    Args:
        z: embeddings of the student, of at least 2 views and 2 images; bfloat16 and float16 become
            float32.
        t: those of the teacher, of the first views; no gradient flows into them.
        distortion: epsilon of the coding rate.

    Returns:
        `agreement` in [-1, 1]; `coding_rate` in [-gamma m / 2 log(1 + width / (m distortion)), 0],
        m the smaller of batch and width.

    Raises:
        NonegError: fewer than 2 views or images.
    """
    check_views("simdino", z)
    batch, width = z.shape[1:]
    student, teacher = normalize(z, dim=2), normalize(t.detach(), dim=2)
    both = (student[: len(t)] + teacher) / 2
    rates = torch.stack([coding_rate(view, distortion=distortion) for view in both])
    gamma = (width + batch) / (width * batch)
    return {"agreement": -mean_product(student, teacher), "coding_rate": -gamma * rates.mean()}
