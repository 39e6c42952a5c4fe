"""CorInfoMax (Ozsoy et al., arXiv 2209.07999): log-determinants of running covariances."""

import torch
from jaxtyping import Float
from torch import Tensor

from noneg.losses.agreement import mean_squared_error
from noneg.losses.inputs import check_views, in_full_precision, to_float64


@in_full_precision
def running_covariance(
    z: Float[Tensor, "batch width"],
    mean: Float[Tensor, "width"],
    covariance: Float[Tensor, "width width"],
    *,
    decay: float,
) -> tuple[Float[Tensor, "width"], Float[Tensor, "width width"]]:
    """Mean and covariance (divisor batch) averaged with those of earlier steps.

    The covariance is about the new mean. `decay` is the weight of the old values. Gradients flow
    into `z` through both.
    """
    mean = torch.lerp(z.mean(dim=0), mean, decay)
    centered = z - mean
    return mean, torch.lerp(centered.T @ centered / len(z), covariance, decay)


@in_full_precision
def corinfomax(
    z: Float[Tensor, "views batch width"],
    covariances: Float[Tensor, "branches width width"],
    *,
    invariance: float = 500.0,
    epsilon: float = 1e-8,
) -> dict[str, Float[Tensor, ""]]:
    """Minus the mean log-determinant of the covariances, per coordinate; and agreement.

    Convention: the authors' code: -log det(R_b + epsilon I) / width, added over the two branches,
    and the mean squared difference over batch and width, over pairs of views. Log-determinants are
    by Cholesky, in float64 if the device has it.

    Args:
        z: projections, which the method scales to length 1; bfloat16 and float16 become float32.
        covariances: one for each branch, with a gradient to `z`.
        invariance: weight alpha of the agreement.
        epsilon: added to the diagonal.

    Returns:
        `invariance` >= 0, and `log_determinant_1`, `log_determinant_2`: each at least log(width)
        for embeddings of length 1, which is reached if they fill all directions alike, and at most
        -log(epsilon).

    Raises:
        NonegError: fewer than 2 views or images.
    """
    check_views("corinfomax", z)
    width = z.shape[2]
    exact = to_float64(covariances)
    identity = torch.eye(width, dtype=exact.dtype, device=z.device)
    factors = torch.linalg.cholesky(exact + epsilon * identity)
    logarithms = 2 * factors.diagonal(dim1=1, dim2=2).log().sum(dim=1).to(z.dtype)
    terms = {"invariance": invariance * mean_squared_error(z)}
    for number, value in enumerate(logarithms, start=1):
        terms[f"log_determinant_{number}"] = -value / width
    return terms
