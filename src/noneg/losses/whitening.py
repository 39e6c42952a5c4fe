"""W-MSE (Ermolov et al., arXiv 2007.06346): agreement of whitened embeddings."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from noneg.errors import NonegError
from noneg.losses.agreement import mean_squared_error
from noneg.losses.inputs import check_views, in_full_precision, to_float64


@in_full_precision
def whiten(
    z: Float[Tensor, "batch width"], *, epsilon: float = 0.0
) -> Float[Tensor, "batch width"]:
    """Mean 0 and the identity as covariance (divisor batch - 1), by Cholesky (paper, eq. 4).

    With C = LL' the covariance, (1 - epsilon) C + epsilon I in the authors' code, rows x become
    L^-1 (x - mean). Computed in float64 where the device has it, because the inverse multiplies
    rounding errors by the condition of C.

    Raises:
        NonegError: the batch is not larger than the width, so that it has no full covariance; or
            the covariance is singular.
    """
    batch, width = z.shape
    if batch <= width and epsilon == 0:
        raise NonegError(
            f"whitening needs more images in a batch than coordinates, not {batch} and {width}: "
            "raise the batch size or end the projector in fewer coordinates (the paper has 64)"
        )
    exact = to_float64(z)
    centered = exact - exact.mean(dim=0)
    covariance = centered.T @ centered / (batch - 1)
    identity = torch.eye(width, dtype=exact.dtype, device=z.device)
    factor, failed = torch.linalg.cholesky_ex((1 - epsilon) * covariance + epsilon * identity)
    if bool(failed):
        raise NonegError(
            "the covariance of the batch is singular (collapsed, or copies of one coordinate): "
            "whitening needs epsilon > 0 there"
        )
    white: Tensor = torch.linalg.solve_triangular(factor, centered.T, upper=False).T.to(z.dtype)
    return white


@in_full_precision
def w_mse(
    z: Float[Tensor, "views batch width"], *, epsilon: float = 0.0
) -> dict[str, Float[Tensor, ""]]:
    """Squared distance of whitened embeddings of unit length, 2 - 2 cos (paper, eq. 3 and 5).

    Convention: the authors' code, but for their slices of the batch: all views of the whole batch
    are whitened by one covariance, where they take a random part of a view at a time. The mean over
    images and over pairs of views.

    Args:
        z: projections of at least 2 views and of more images than coordinates.
        epsilon: share of the identity in the covariance.

    Returns:
        `w_mse`, in [0, 4].

    Raises:
        NonegError: fewer than 2 views or images, or no covariance to whiten by.
    """
    check_views("w_mse", z)
    views, batch, width = z.shape
    white = normalize(whiten(z.flatten(0, 1), epsilon=epsilon), dim=1)
    return {"w_mse": width * mean_squared_error(white.view(views, batch, width))}
