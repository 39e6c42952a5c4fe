"""VICReg (Bardes, Ponce and LeCun, arXiv 2105.04906)."""

import torch
from jaxtyping import Float
from torch import Tensor

from noneg.losses.agreement import mean_squared_error
from noneg.losses.gram import covariance_energy
from noneg.losses.inputs import check_views, in_full_precision


@in_full_precision
def variance_hinge(
    z: Float[Tensor, "views batch width"], *, epsilon: float = 1e-4
) -> Float[Tensor, ""]:
    """VICReg's variance term alone: the mean over views and width of max(0, 1 - deviation).

    Range [0, 1]; 0.99 for zeros.
    """
    return torch.relu(1 - torch.sqrt(z.var(dim=1) + epsilon)).mean()


@in_full_precision
def vicreg(
    z: Float[Tensor, "views batch width"],
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    epsilon: float = 1e-4,
) -> dict[str, Float[Tensor, ""]]:
    """The weighted terms of VICReg; the loss is their sum.

    Convention: the authors' code. The invariance term is a mean over batch and width. The variance
    term is a mean over width and over the views (the paper adds the two views). The covariance
    term is the sum of the squared off-diagonal entries divided by the width, added over the two
    views. With more views, invariance is a mean over pairs and covariance twice the mean over
    views. Zeros with weights (25, 25, 1) give 24.75.

    Args:
        z: projections of at least 2 views and 2 images; bfloat16 and float16 become float32.
        invariance: weight lambda of the paper.
        variance: weight mu.
        covariance: weight nu.
        epsilon: added to the variance under the root.

    Returns:
        `invariance`, and for each view `variance_1`, `covariance_1`, `variance_2` ..., each >= 0.
        Weights and the factors of the means over views are applied, so the loss is their sum.

    Raises:
        NonegError: fewer than 2 views or images.
    """
    check_views("vicreg", z)
    views, batch, width = z.shape
    squares, energies = covariance_energy(z)
    hinges = torch.relu(1 - torch.sqrt(squares / (batch - 1) + epsilon)).mean(dim=1)
    terms = {"invariance": invariance * mean_squared_error(z)}
    for number, (hinge, energy) in enumerate(zip(hinges, energies, strict=True), start=1):
        terms[f"variance_{number}"] = variance / views * hinge
        terms[f"covariance_{number}"] = covariance * 2 / views / width / (batch - 1) ** 2 * energy
    return terms
