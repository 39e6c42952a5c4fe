"""LiDAR: how many directions tell images apart, relative to the effect of the augmentation."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from noneg.diagnostics.resolution import exact, resolution_of


def lidar(
    views: Float[Tensor, "views images width"],
    *,
    delta: float = 1e-4,
    resolution: float | None = None,
) -> float:
    """The effective rank of the linear discriminant matrix whose classes are the images.

        exp(-sum_k p_k log p_k),   p = eigenvalues of W^-1/2 S_b W^-1/2 over their sum
        S_b = 1/(N - 1) sum_i (m_i - m)(m_i - m)^T
        W   = 1/(N (V - 1)) sum_iv (z_vi - m_i)(z_vi - m_i)^T + delta I

    with m_i the mean of the views of image i and m the mean of all. Thilak et al. 2023, arXiv
    2312.04000, section 3, with unbiased covariances and delta = 1e-4. 0 log 0 is 0 here; the paper
    adds a small constant to each p_k.

    In [1, min(N - 1, D)]. Good: high among runs of one method at one N, V, D. Bad: near 1.
    Directions that change as much with the augmentation as with the image count little. So, unlike
    the plain rank, it discounts noise that differs between views.

    It needs many views: with N (V - 1) < D there are directions in which W is only delta, and these
    decide the result. The paper uses 1,000 images and 50 views. Because of delta, it depends on the
    scale of the embeddings. It cannot see whether what the views share is useful.

    Args:
        views: embeddings [V, N, D], grouped by view.
        delta: added to the diagonal of the covariance within images.
        resolution: as in `covariance_eigenvalues`.

    Returns:
        The rank; 1 if the mean embeddings of all images are equal; NaN for a single view or a
        single image, or if an embedding is not finite.
    """
    count, images, width = views.shape
    if count < 2 or images < 2:
        return math.nan
    resolution = resolution_of(views) if resolution is None else resolution
    z = exact(views)
    if not bool(torch.isfinite(z).all()):
        return math.nan
    means = z.mean(dim=0)
    between = (means - means.mean(dim=0)) / (images - 1) ** 0.5
    rounding = 2 * resolution * means.norm() * (images**-0.5 + width**-0.5)
    # The singular values are not above the rounding, on average.
    if between.norm() * ((images - 1) / min(images, width)) ** 0.5 <= rounding:
        return 1.0
    within = _contrasts(z).reshape(-1, width) / (images * (count - 1)) ** 0.5
    # If the covariance is far above delta, the least that float64 can add to it.
    delta = max(delta, 1e-14 * float(within.square().sum()))
    gram = _discriminant_gram(between, within, delta)
    eigenvalues = torch.linalg.eigvalsh(gram).clamp(min=0)
    # What is below is float64's own rounding.
    eigenvalues = eigenvalues.where(eigenvalues > 1e-14 * eigenvalues[-1], 0)
    return float(torch.special.entr(eigenvalues / eigenvalues.sum()).sum().exp())


def _contrasts(z: Float[Tensor, "views images width"]) -> Float[Tensor, "contrasts images width"]:
    """V - 1 contrasts of the views, with the same scatter as the V deviations from their mean."""
    count = z.shape[0]
    helmert = torch.ones(count - 1, count, dtype=z.dtype, device=z.device).tril()
    order = torch.arange(1, count, dtype=z.dtype, device=z.device)
    helmert = helmert - torch.diag_embed(order, offset=1)[: count - 1]
    helmert = helmert / (order * (order + 1)).sqrt()[:, None]
    contrasts: Tensor = torch.tensordot(helmert, z, dims=1)
    return contrasts


def _discriminant_gram(
    between: Float[Tensor, "images width"], within: Float[Tensor, "rows width"], delta: float
) -> Float[Tensor, "side side"]:
    """A matrix with the nonzero eigenvalues of W^-1/2 S_b W^-1/2."""
    rows, width = within.shape
    if rows < width:
        # By the Woodbury identity, without a width x width matrix. The number of images is then
        # also below the width.
        factor = _factor(within @ within.T, delta)
        explained = torch.linalg.solve_triangular(factor, within @ between.T, upper=False)
        unexplained: Tensor = between @ between.T - explained.T @ explained
        return unexplained / delta
    factor = _factor(within.T @ within, delta)
    whitened: Tensor = torch.linalg.solve_triangular(factor, between.T, upper=False)
    return whitened.T @ whitened if len(between) < width else whitened @ whitened.T


def _factor(covariance: Float[Tensor, "side side"], delta: float) -> Float[Tensor, "side side"]:
    identity = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    factor: Tensor = torch.linalg.cholesky(covariance + delta * identity)
    return factor
