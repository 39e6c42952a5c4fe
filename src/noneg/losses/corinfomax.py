"""CorInfoMax (Ozsoy et al., arXiv 2209.07999): log-determinants of running covariances."""

import torch
from jaxtyping import Float
from torch import Tensor

from noneg.errors import NonegError
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
    into `z` through both. Computed and returned in float64 if the device has it: rounded to
    float32, the covariance of embeddings in few directions has eigenvalues below 0.
    """
    exact, mean, covariance = (to_float64(each) for each in (z, mean, covariance))
    mean = torch.lerp(exact.mean(dim=0), mean, decay)
    centered = exact - mean
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
        `invariance` >= 0, and `log_determinant_1`, `log_determinant_2`: for embeddings of length 1,
        each is at least log(width), which is reached if they fill all directions alike, and at most
        -log(epsilon). Below log(width) only as long as the covariances remember where they began.

    Raises:
        NonegError: fewer than 2 views or images, or a covariance that is singular even with
            epsilon added, up to rounding.
    """
    check_views("corinfomax", z)
    width = z.shape[2]
    exact = to_float64(covariances)
    identity = torch.eye(width, dtype=exact.dtype, device=z.device)
    factors, failed = torch.linalg.cholesky_ex(exact + epsilon * identity)
    # NaN in, NaN out: then training says that the loss is not finite.
    if bool(failed.any()) and bool(exact.isfinite().all()):
        raise NonegError(
            "the covariance of the embeddings is singular (they collapsed, or the batch is smaller "
            f"than their width of {width}): give a larger epsilon than {epsilon:g}, a larger "
            "batch, or a narrower projector"
        )
    logarithms = 2 * factors.diagonal(dim1=1, dim2=2).log().sum(dim=1).to(z.dtype)
    terms = {"invariance": invariance * mean_squared_error(z)}
    for number, value in enumerate(logarithms, start=1):
        terms[f"log_determinant_{number}"] = -value / width
    return terms
