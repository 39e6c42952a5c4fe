"""VICReg (Bardes, Ponce and LeCun, arXiv 2105.04906)."""

import torch
from jaxtyping import Float
from torch import Tensor

from noneg.losses.agreement import mean_squared_error


def covariance_energy(z: Float[Tensor, "batch width"]) -> Float[Tensor, ""]:
    """Sum of the squared off-diagonal entries of the covariance matrix (divisor batch - 1).

    The sum over all entries is |Z'Z|_F^2 = |ZZ'|_F^2 of the centred Z, so the smaller of the two
    matrices is built: same value, same gradient.
    """
    batch, width = z.shape
    centred = z - z.mean(dim=0)
    gram = centred @ centred.T if batch < width else centred.T @ centred
    variance = centred.square().sum(dim=0) / (batch - 1)
    return gram.square().sum() / (batch - 1) ** 2 - variance.square().sum()


def variance_hinge(z: Float[Tensor, "batch width"], epsilon: float = 1e-4) -> Float[Tensor, ""]:
    """How much the standard deviation (divisor batch - 1) falls short of 1, averaged over width."""
    return torch.relu(1 - torch.sqrt(z.var(dim=0) + epsilon)).mean()


def vicreg(
    z: Float[Tensor, "views batch width"],
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    epsilon: float = 1e-4,
) -> dict[str, Float[Tensor, ""]]:
    """The weighted terms of VICReg; the loss is their sum.

    Convention: the authors' code. The invariance term is a mean over width; the variance term is
    a mean over the views (the paper's pseudocode sums the two); the covariance term is a sum over
    two views of squared off-diagonal entries over width. With more views, invariance is a mean
    over pairs and covariance twice the mean over views. For zeros and (25, 25, 1): 24.75.

    Args:
        z: projections of at least 2 views and 2 images, in float32 or float64.
        invariance: weight lambda of the paper.
        variance: weight mu.
        covariance: weight nu.
        epsilon: added to the variance under the root.

    Returns:
        `invariance`, `variance` and `covariance`, each with its weight applied, each >= 0.
    """
    width = z.shape[2]
    hinge = torch.stack([variance_hinge(view, epsilon) for view in z]).mean()
    energy = torch.stack([covariance_energy(view) for view in z]).mean()
    return {
        "invariance": invariance * mean_squared_error(z),
        "variance": variance * hinge,
        "covariance": covariance * 2 * energy / width,
    }
