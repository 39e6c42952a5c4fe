"""How well can what an image was drawn from be read off its features by a linear map?"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Float64, Num

from noneg.images.shapes import FACTORS

_RIDGE = 1e-2
# Stripes that are turned by half a turn are the same stripes.
_HALF_TURN = ("foreground_angle", "background_angle")


def factor_readout(
    bank: Float[np.ndarray, "bank width"],
    bank_factors: Mapping[str, Num[np.ndarray, " bank"]],
    test: Float[np.ndarray, "test width"],
    test_factors: Mapping[str, Num[np.ndarray, " test"]],
) -> dict[str, float]:
    """For each factor of `shapes`, the share of its variance that ridge regression finds.

    R2 on the test images, cut off at 0: 1, all of the factor can be read; 0, none of it. Angles and
    hues are read by their sine and cosine, whose R2 are averaged; textures by one column each.
    Features are standardised, and the penalty is 0.01 of the number of images.

    Args:
        bank: features [N, D] to learn from.
        bank_factors: of the same images, as `images.factors` has them.
        test: features [M, D].
        test_factors: theirs.
    """
    mean, std = bank.mean(axis=0), bank.std(axis=0)
    std = np.where(std > 1e-6 * np.abs(mean), std, np.inf)
    x, y = (bank - mean).astype(np.float64) / std, (test - mean).astype(np.float64) / std
    gram = x.T @ x + _RIDGE * len(x) * np.eye(x.shape[1])
    learnt = {name: targets(name, values) for name, values in bank_factors.items()}
    centres = {name: values.mean(axis=0) for name, values in learnt.items()}
    columns = np.concatenate([learnt[name] - centres[name] for name in learnt], axis=1)
    predicted = y @ np.linalg.solve(gram, x.T @ columns)
    shares, start = {}, 0
    for name, centre in centres.items():
        wanted = targets(name, test_factors[name]) - centre
        found = predicted[:, start : start + len(centre)]
        start += len(centre)
        total = np.square(wanted - wanted.mean(axis=0)).sum(axis=0)
        rest = np.square(wanted - found).sum(axis=0)
        shares[name] = float(np.clip(1 - rest / np.maximum(total, 1e-12), 0, 1).mean())
    return shares


def targets(name: str, values: Num[np.ndarray, " n"]) -> Float64[np.ndarray, "n columns"]:
    """One factor as the columns that a linear map should find."""
    factor = FACTORS[name]
    if factor.unit.startswith("index"):
        indices = np.arange(factor.low, factor.high + 1)
        chosen: np.ndarray = np.equal(values[:, None], indices).astype(np.float64)
        return chosen
    if factor.high - factor.low == 360:
        turns = 2 if name in _HALF_TURN else 1
        angle = np.deg2rad(turns * values)
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.asarray(values, dtype=np.float64)[:, None]
