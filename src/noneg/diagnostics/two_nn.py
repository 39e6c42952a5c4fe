"""The intrinsic dimension of the embeddings, from nearest neighbors."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from noneg.diagnostics.distances import squared_distances
from noneg.diagnostics.resolution import exact, resolution_of

FEWEST = 10
"""Different embeddings below which the dimension is not estimated."""


def two_nn_dimension(z: Float[Tensor, "images width"], *, resolution: float | None = None) -> float:
    """The intrinsic dimension by TwoNN, from the distances to the two nearest neighbors.

    With m the ratio of the second distance to the first, P(m <= x) = 1 - x^-d on a manifold of d
    dimensions whose density is constant at the scale of two neighbors. d is the slope through the
    origin of -log(1 - F(m)) against log m, F the empirical distribution (i / N for the i-th
    smallest), by least squares over the lowest 90 % of the ratios.

    Facco et al. 2017, "Estimating the intrinsic dimension of datasets by a minimal neighborhood
    information", the paper's own linear fit (not maximum likelihood). Duplicates are dropped first.

    Above 0. White noise gives less than D, and far less in tens of dimensions, because the number
    of images would have to grow exponentially. No value is good in itself; near 1 or 2 is bad. It
    gives the dimension of a curved manifold, while ranks count the space that it bends through. It
    counts noise at the scale of the nearest neighbors as dimensions. Standard error about
    d / sqrt(N).

    Args:
        z: embeddings [N, D] of any float type.
        resolution: as in `covariance_eigenvalues`; embeddings closer than it are duplicates.

    Returns:
        The dimension; NaN with fewer than ten different embeddings, if all ratios are 1, or if an
        embedding is not finite.
    """
    resolution = resolution_of(z) if resolution is None else resolution
    z = exact(z)
    if not bool(torch.isfinite(z).all()):
        return math.nan
    # 1e-8 is float64's own resolution: a distance is the root of a difference.
    equal = max(2 * resolution, 1e-8) * torch.linalg.vector_norm(z, dim=1)
    z = z - z.mean(dim=0)
    if len(z) < FEWEST:
        return math.nan
    nearest, is_repeat = _two_nearest(z, equal)
    if bool(is_repeat.any()):
        z, equal = z[~is_repeat], equal[~is_repeat]
        if len(z) < FEWEST:
            return math.nan
        nearest, _ = _two_nearest(z, equal)
    ratio = (nearest[:, 1] / nearest[:, 0]).log().sort().values
    images = len(ratio)
    kept = int(0.9 * images)
    x = ratio[:kept]
    y = -torch.log1p(-torch.arange(1, kept + 1, dtype=x.dtype, device=x.device) / images)
    energy = float(x.square().sum())
    return float((x * y).sum()) / energy if energy > 0 else math.nan


def _two_nearest(
    z: Float[Tensor, "images width"], equal: Float[Tensor, "images"]
) -> tuple[Float[Tensor, "images two"], Bool[Tensor, "images"]]:
    """The distances to the two nearest others, and whether an earlier embedding is equal."""
    nearest, is_repeat = [], []
    for start, squared in squared_distances(z, z):
        distance = squared.sqrt()
        distance.diagonal(offset=start).fill_(torch.inf)
        nearest.append(distance.topk(2, largest=False).values)
        close = distance <= equal[start : start + len(squared), None]
        is_repeat.append(close.tril(start - 1).any(dim=1))
    return torch.cat(nearest), torch.cat(is_repeat)
