"""VIbCReg (Lee and Aune, arXiv 2109.00783): VICReg with correlations instead of covariances."""

import torch
from jaxtyping import Float
from torch import Tensor

from noneg.losses.agreement import mean_squared_error
from noneg.losses.gram import covariance_energy, unit_columns
from noneg.losses.inputs import check_views, in_full_precision


@in_full_precision
def vibcreg(
    z: Float[Tensor, "views batch width"],
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 200.0,
    epsilon: float = 1e-4,
) -> dict[str, Float[Tensor, ""]]:
    """The weighted terms of VIbCReg; the loss is their sum.

    As VICReg, but the covariance term is made of correlations, whose scale does not depend on the
    width or on the variances. The smaller of the two Gram matrices is built.

    Convention: the authors' code. Invariance is a mean over batch and width; the variance term a
    mean over the width, added over the two views; the covariance term the mean of all width^2
    entries of the squared correlation matrix, the diagonal counted as 0, added over the two views.
    With more views, invariance is a mean over pairs and the others twice the mean over views. Zeros
    with the default weights give 49.5.

    Args:
        z: projections of at least 2 views and 2 images; bfloat16 and float16 become float32.
        invariance: weight of the agreement between views.
        variance: weight of the hinge on the standard deviations.
        covariance: weight of the squared correlations.
        epsilon: added to the variance under the root of the hinge.

    Returns:
        `invariance`, and for each view `variance_1`, `covariance_1`, `variance_2` ..., each >= 0.

    Raises:
        NonegError: fewer than 2 views or images.
    """
    check_views("vibcreg", z)
    views, batch, width = z.shape
    centered = z - z.mean(dim=1, keepdim=True)
    # The mean of large numbers is rounded.
    centered = centered - centered.mean(dim=1, keepdim=True)
    squares = centered.square().sum(dim=1)
    hinges = torch.relu(1 - torch.sqrt(squares / (batch - 1) + epsilon)).mean(dim=1)
    columns = unit_columns(centered)
    _, energies = covariance_energy(columns)
    terms = {"invariance": invariance * mean_squared_error(z)}
    for number, (hinge, energy) in enumerate(zip(hinges, energies, strict=True), start=1):
        terms[f"variance_{number}"] = variance * 2 / views * hinge
        terms[f"covariance_{number}"] = covariance * 2 / views / width**2 * energy
    return terms
