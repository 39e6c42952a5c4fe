"""Standardize and whiten features, by the statistics of the images that the probes learn from."""

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64

from noneg.errors import NonegError

SHRINKAGE = 0.1
"""Measured on three data sets, see the log of 2026-11-27: 0.03 to 0.3 give much the same."""


def standardized(
    train: Float[np.ndarray, "train width"], test: Float[np.ndarray, "test width"]
) -> tuple[Float32[np.ndarray, "train width"], Float32[np.ndarray, "test width"]]:
    """Both parts minus the mean of `train`, over its standard deviation; constants become 0."""
    mean, std = moments(train)
    shift, scale = mean.astype(np.float32), (1 / std).astype(np.float32)
    return (
        (train.astype(np.float32) - shift) * scale,
        (test.astype(np.float32) - shift) * scale,
    )


def whitened(
    bank: Float[np.ndarray, "bank width"],
    test: Float[np.ndarray, "test width"],
    *,
    shrinkage: float = SHRINKAGE,
) -> tuple[Float32[np.ndarray, "bank width"], Float32[np.ndarray, "test width"]]:
    """Both parts minus the mean of the bank, times the inverse root of its shrunken covariance.

    The covariance S [D, D] becomes (1 - s) S + s v I, where v is the mean variance of a feature (as
    in Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance
    matrices", with a fixed s). So directions with almost no variance do not count as much as the
    others, and there may be fewer images than features. Cosines of the result do not change if the
    features are shifted, rotated, or scaled by one number.

    Args:
        bank: features [N, D].
        test: features [M, D].
        shrinkage: s, in (0, 1]; with 1 the features are only centered.

    Returns:
        float32 [N, D] and [M, D]; 0 for features that are constant in the bank.

    Raises:
        NonegError: there are no features, or they are not finite.
    """
    for name, features in (("bank", bank), ("queries", test)):
        if len(features) == 0 or not np.isfinite(features).all():
            fault = "there are none" if len(features) == 0 else "they hold NaN or infinite values"
            raise NonegError(
                f"The features of the {name} cannot be whitened, {fault}; add images, or find out "
                "where the training diverged."
            )
    mean, std = moments(bank)
    varies = np.isfinite(std)
    shift = mean.astype(np.float32)
    spread = float(np.sqrt(np.mean(np.where(varies, std, 0) ** 2))) if varies.any() else 1.0
    # In units of `spread`, the mean variance is 1, and tiny features do not underflow.
    first, second = (
        torch.from_numpy((part.astype(np.float32) - shift) * (varies / np.float32(spread)))
        for part in (bank, test)
    )
    covariance = first.T @ first / len(first)
    shrunken = (1 - shrinkage) * covariance + shrinkage * torch.eye(len(covariance))
    # Cosines do not depend on which root: a triangular one is the cheapest.
    root = torch.linalg.cholesky(shrunken)
    first, second = (
        torch.linalg.solve_triangular(root, part.T, upper=False).T for part in (first, second)
    )
    return first.contiguous().numpy(), second.contiguous().numpy()


def moments(
    features: Float[np.ndarray, "images width"],
) -> tuple[Float64[np.ndarray, " width"], Float64[np.ndarray, " width"]]:
    """Mean and standard deviation; the latter is infinite for constant features."""
    mean = features.mean(axis=0, dtype=np.float64)
    std = features.std(axis=0, dtype=np.float64)
    # The std of a constant feature is rounding errors; divided by it, these would become features.
    std[std <= 1e-6 * np.abs(mean)] = np.inf
    std[std == 0] = np.inf
    return mean, std
