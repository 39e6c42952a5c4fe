"""Barlow Twins (Zbontar et al., arXiv 2103.03230)."""

from jaxtyping import Float
from torch import Tensor

from noneg.losses.gram import cross_energy
from noneg.losses.inputs import check_views, in_full_precision


@in_full_precision
def barlow_twins(
    z: Float[Tensor, "views batch width"],
    *,
    invariance: float = 1.0,
    redundancy: float = 5e-3,
    epsilon: float = 1e-5,
) -> dict[str, Float[Tensor, ""]]:
    """The weighted terms of Barlow Twins; the loss is their sum.

    With C the correlation matrix between two views (paper, eq. 1 and 2): invariance *
    sum_i (1 - C_ii)^2 and redundancy * sum_{i != j} C_ij^2.

    Convention: the authors' code, sums over the width, biased variance. With more than two views,
    the mean over pairs of views.

    Args:
        z: projections of at least 2 views and 2 images; bfloat16 and float16 become float32.
        invariance: weight of the diagonal; 1 in the paper.
        redundancy: weight of the off-diagonal entries; lambda in the paper.
        epsilon: added to the variance under the root.

    Returns:
        `invariance` (the diagonal) and `redundancy` (the rest), weights applied, each >= 0.

    Raises:
        NonegError: fewer than 2 views or images.
    """
    check_views("barlow_twins", z)
    batch = z.shape[1]
    diagonal, energy = cross_energy(z, epsilon=epsilon)
    mean_over_pairs = 1 / len(energy) / batch**2
    return {
        "invariance": (diagonal - batch).square().sum() * (invariance * mean_over_pairs),
        "redundancy": energy.sum() * (redundancy * mean_over_pairs),
    }
