"""Barlow Twins (Zbontar et al., arXiv 2103.03230)."""

from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor


def standardise(
    z: Float[Tensor, "batch width"], epsilon: float = 1e-5
) -> Float[Tensor, "batch width"]:
    """Mean 0 and variance 1 (divisor batch) along the batch: BatchNorm without scale and shift."""
    centred = z - z.mean(dim=0)
    return centred / torch.sqrt(centred.square().mean(dim=0) + epsilon)


def barlow_twins(
    z: Float[Tensor, "views batch width"],
    *,
    redundancy: float = 5e-3,
    epsilon: float = 1e-5,
) -> dict[str, Float[Tensor, ""]]:
    """The weighted terms of Barlow Twins; the loss is their sum.

    With C the correlation matrix between two views (paper, eq. 1 and 2): sum_i (1 - C_ii)^2 and
    redundancy * sum_{i != j} C_ij^2. The off-diagonal sum needs no C where the batch is smaller
    than half the width: |A'B|_F^2 = <AA', BB'>.

    Convention: the authors' code, sums over the width, biased variance. With more than two views,
    the mean over pairs of views.

    Args:
        z: projections of at least 2 views and 2 images, in float32 or float64.
        redundancy: lambda of the paper.
        epsilon: added to the variance under the root.

    Returns:
        `invariance` (the diagonal) and `redundancy` (the rest), each with its weight, each >= 0.
    """
    batch, width = z.shape[1:]
    standard = [standardise(view, epsilon) for view in z]
    on_diagonal, off_diagonal = [], []
    for a, b in combinations(standard, 2):
        if 2 * batch < width:
            diagonal = (a * b).mean(dim=0)
            energy = ((a @ a.T) * (b @ b.T)).sum() / batch**2
        else:
            correlation = a.T @ b / batch
            diagonal = correlation.diagonal()
            energy = correlation.square().sum()
        on_diagonal.append((1 - diagonal).square().sum())
        off_diagonal.append(energy - diagonal.square().sum())
    return {
        "invariance": torch.stack(on_diagonal).mean(),
        "redundancy": redundancy * torch.stack(off_diagonal).mean(),
    }
