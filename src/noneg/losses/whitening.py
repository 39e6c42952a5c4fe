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
    """Whiten by Cholesky: mean 0, the identity as covariance, divisor batch - 1 (paper, eq. 4).

    With C = LL' the covariance, or (1 - epsilon) C + epsilon I as in the authors' code, rows x
    become L^-1 (x - mean). Computed in float64 if the device has it, because the inverse multiplies
    rounding errors by the condition number of C.

    Raises:
        NonegError: the batch is not larger than the width, so the covariance has no full rank; or
            the covariance is singular.
    """
    batch, width = z.shape
    if batch <= width and epsilon == 0:
        raise NonegError(
            f"whitening needs more embeddings than coordinates, not {batch} and {width}: "
            "raise the batch size, or give the projector a smaller output (64 in the paper)"
        )
    exact = to_float64(z)
    centered = exact - exact.mean(dim=0)
    covariance = centered.T @ centered / (batch - 1)
    identity = torch.eye(width, dtype=exact.dtype, device=z.device)
    factor, failed = torch.linalg.cholesky_ex((1 - epsilon) * covariance + epsilon * identity)
    if bool(failed):
        raise NonegError(
            "the covariance of the batch is singular (embeddings collapsed, or one coordinate is a "
            "copy of another): give whitening an epsilon > 0"
        )
    white: Tensor = torch.linalg.solve_triangular(factor, centered.T, upper=False).T.to(z.dtype)
    return white


@in_full_precision
def w_mse(
    z: Float[Tensor, "views batch width"], *, epsilon: float = 0.0
) -> dict[str, Float[Tensor, ""]]:
    """Squared distance of whitened embeddings of unit length, 2 - 2 cos (paper, eq. 3 and 5).

    Convention: the authors' code, except that all views of the whole batch are whitened by one
    covariance; the authors whiten random parts of each view separately. The mean over images and
    over pairs of views.

    Args:
        z: projections of at least 2 views; more embeddings (views * batch) than coordinates.
        epsilon: weight of the identity in the covariance, in [0, 1].

    Returns:
        `w_mse`, in [0, 4].

    Raises:
        NonegError: fewer than 2 views or images, too few embeddings, or a singular covariance.
    """
    check_views("w_mse", z)
    views, batch, width = z.shape
    white = normalize(whiten(z.flatten(0, 1), epsilon=epsilon), dim=1)
    return {"w_mse": width * mean_squared_error(white.view(views, batch, width))}
