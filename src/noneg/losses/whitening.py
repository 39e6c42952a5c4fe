"""W-MSE (Ermolov et al., arXiv 2007.06346): agreement of whitened embeddings."""

import torch
from jaxtyping import Float, Int
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
    # NaN in, NaN out: then training says that the loss is not finite.
    if bool(failed) and bool(covariance.isfinite().all()):
        raise NonegError(
            "the covariance of the batch is singular (embeddings collapsed, or one coordinate is a "
            "copy of another): give whitening an epsilon > 0"
        )
    white: Tensor = torch.linalg.solve_triangular(factor, centered.T, upper=False).T.to(z.dtype)
    return white


@in_full_precision
def w_mse(
    z: Float[Tensor, "views batch width"],
    *,
    epsilon: float = 0.0,
    per_view: bool = False,
    groups: int = 1,
    order: Int[Tensor, "batch"] | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """Squared distance of whitened embeddings of unit length, 2 - 2 cos (paper, eq. 3 and 5).

    Convention: the mean over images and over pairs of views. With `per_view`, the authors' code:
    groups of images, each view of each group whitened by its own covariance. By default, all views
    of the whole batch are whitened by one covariance.

    Args:
        z: projections of at least 2 views; more embeddings than coordinates are whitened at once.
        epsilon: weight of the identity in the covariance, in [0, 1].
        per_view: whiten each view by itself.
        groups: number of groups of images, as even as possible, that are whitened by themselves.
        order: positions of the images, of which the first ones are the first group, and so on.

    Returns:
        `w_mse`, in [0, 4].

    Raises:
        NonegError: fewer than 2 views or images, too few embeddings, or a singular covariance.
    """
    check_views("w_mse", z)
    width = z.shape[2]
    parts = (z if order is None else z[:, order]).tensor_split(groups, dim=1)
    white = torch.cat([_whiten_views(part, epsilon, per_view) for part in parts], dim=1)
    return {"w_mse": width * mean_squared_error(normalize(white, dim=2))}


def _whiten_views(
    z: Float[Tensor, "views batch width"], epsilon: float, per_view: bool
) -> Float[Tensor, "views batch width"]:
    if per_view:
        return torch.stack([whiten(view, epsilon=epsilon) for view in z])
    return whiten(z.flatten(0, 1), epsilon=epsilon).view(z.shape)
