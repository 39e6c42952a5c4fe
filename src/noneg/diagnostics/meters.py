"""The meters: one row each, with its function and how to read it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from noneg.diagnostics.lidar import lidar
from noneg.diagnostics.resolution import exact, resolution_of
from noneg.diagnostics.spectrum import (
    Spectrum,
    alpha_req_of,
    covariance_eigenvalues,
    effective_rank_of,
    explained_auc_of,
    nesum_of,
    participation_ratio,
    participation_ratio_of,
    rankme_of,
    stable_rank_of,
    top_share_of,
)
from noneg.diagnostics.spread import (
    alignment,
    mean_cosine,
    mean_norm,
    normalized_std,
    self_clustering,
    uniformity,
    view_retrieval,
)
from noneg.diagnostics.two_nn import two_nn_dimension


@final
@dataclass(frozen=True)
class MeterInput:
    """The embeddings that meters take, and their spectra, each decomposed once and only if needed.

    Args:
        views: finite embeddings [V, N, D] in float64, grouped by view.
        resolution: relative precision to which they are known.
    """

    views: Float[Tensor, "views images width"]
    resolution: float

    @property
    def z(self) -> Float[Tensor, "images width"]:
        """The first view."""
        return self.views[0]

    @cached_property
    def centered(self) -> Spectrum:
        """Eigenvalues of the covariance of the first view."""
        return covariance_eigenvalues(self.z, resolution=self.resolution)

    @cached_property
    def uncentered(self) -> Spectrum:
        """Eigenvalues of the second moment of the first view."""
        return covariance_eigenvalues(self.z, centered=False, resolution=self.resolution)


@final
@dataclass(frozen=True)
class Meter:
    """A meter, and how to read it.

    Args:
        function: what it computes, as a float; NaN if it is undefined.
        title: a name for people.
        better: which direction is better, all else being equal.
        low: lower bound, or None if there is none.
        high: upper bound, or None if there is none or it depends on N and D.
        blind: what it cannot see, in one sentence.
    """

    function: Callable[[MeterInput], float]
    title: str
    better: Literal["higher", "lower", "neither"]
    low: float | None
    high: float | None
    blind: str


METERS: dict[str, Meter] = {
    "std": Meter(
        lambda e: normalized_std(e.z),
        "Normalized std",
        "higher",
        0.0,
        1.0,
        "Blind to collapse onto a line or a few directions.",
    ),
    "effective_rank": Meter(
        lambda e: effective_rank_of(e.centered),
        "Effective rank",
        "higher",
        1.0,
        None,
        "Blind to scale; noise has the highest rank of all.",
    ),
    "rankme": Meter(
        lambda e: rankme_of(e.uncentered),
        "RankMe",
        "higher",
        1.0,
        None,
        "Not centered: a mean that all images share hides the rest.",
    ),
    "participation_ratio": Meter(
        lambda e: participation_ratio_of(e.centered),
        "Participation ratio",
        "higher",
        1.0,
        None,
        "Blind to a tail of many small directions.",
    ),
    "stable_rank": Meter(
        lambda e: stable_rank_of(e.uncentered),
        "Stable rank",
        "higher",
        1.0,
        None,
        "Blind to all but the strongest direction, which is often the mean.",
    ),
    "top_share": Meter(
        lambda e: top_share_of(e.centered),
        "Share of the first direction",
        "lower",
        0.0,
        1.0,
        "Blind to all but the first direction.",
    ),
    "nesum": Meter(
        lambda e: nesum_of(e.centered),
        "NESum",
        "higher",
        1.0,
        None,
        "Blind to all but the first direction.",
    ),
    "alpha_req": Meter(
        lambda e: alpha_req_of(e.centered),
        "alpha-ReQ",
        "neither",
        0.0,
        None,
        "Blind to the first ten directions and to missing ones; near 1 is best.",
    ),
    "explained_auc": Meter(
        lambda e: explained_auc_of(e.centered),
        "Area under explained variance",
        "lower",
        0.5,
        1.0,
        "Blind to scale; cannot tell noise from signal.",
    ),
    "alignment": Meter(
        lambda e: alignment(e.views),
        "Alignment",
        "lower",
        0.0,
        4.0,
        "Blind to collapse: equal embeddings have the best value.",
    ),
    "uniformity": Meter(
        lambda e: uniformity(e.z),
        "Uniformity",
        "lower",
        -8.0,
        0.0,
        "Nearly blind to collapse onto a few tens of directions.",
    ),
    "mean_cosine": Meter(
        lambda e: mean_cosine(e.z),
        "Mean cosine",
        "lower",
        -1.0,
        1.0,
        "Blind to collapse onto a line through the origin.",
    ),
    "self_clustering": Meter(
        lambda e: self_clustering(e.z),
        "Self-clustering",
        "lower",
        None,
        1.0,
        "Blind to signs; cannot tell noise from signal.",
    ),
    "view_retrieval": Meter(
        lambda e: view_retrieval(e.views, resolution=e.resolution),
        "View retrieval",
        "higher",
        0.0,
        1.0,
        "Blind to what tells the images apart: color is enough.",
    ),
    "lidar": Meter(
        lambda e: lidar(e.views, resolution=e.resolution),
        "LiDAR",
        "higher",
        1.0,
        None,
        "With few views, decided by directions in which no views differ.",
    ),
    "two_nn_dimension": Meter(
        lambda e: two_nn_dimension(e.z, resolution=e.resolution),
        "TwoNN dimension",
        "neither",
        0.0,
        None,
        "Counts noise between nearest neighbors as dimensions.",
    ),
    "norm": Meter(
        lambda e: mean_norm(e.z), "Mean norm", "neither", 0.0, None, "Blind to directions."
    ),
}
"""The meters of `measure`, in its order."""

QUICK_METERS: dict[str, Meter] = {
    **{name: METERS[name] for name in ("std", "norm", "mean_cosine", "alignment")},
    # From the Gram matrix, without its eigenvalues.
    "participation_ratio": replace(
        METERS["participation_ratio"],
        function=lambda e: participation_ratio(e.z, resolution=e.resolution),
    ),
}
"""The meters of `quick_measure`, in its order."""


def measure(
    views: Float[Tensor, "views images width"], *, resolution: float | None = None
) -> dict[str, float]:
    """All meters at once. The docstrings of their functions say what they are and how to read them.

    Alignment, retrieval and LiDAR use all views, and are NaN for a single view. All other meters
    use the first view.

    Never fails on collapsed embeddings. If all are equal, the spread is 0, the ranks and shares
    are 1, uniformity is 0, retrieval is 1 / N, and alpha-ReQ and TwoNN, which then mean nothing,
    are NaN. If all are zero, the cosine and self-clustering are NaN too.

    Cost: two decompositions, one of centered and one of uncentered embeddings, of size min(N, D),
    one more for LiDAR, and memory for 1,024 rows of an N x N matrix.

    Args:
        views: embeddings [V, N, D] of any float type, grouped by view; V and N at least 1.
        resolution: relative precision to which the embeddings are known, if that is coarser than
            their type (see `covariance_eigenvalues`).

    Returns:
        A number for each key of METERS, in that order; all NaN if an embedding is not finite.
    """
    return _measure(METERS, views, resolution)


def quick_measure(
    views: Float[Tensor, "views images width"], *, resolution: float | None = None
) -> dict[str, float]:
    """The meters that need no decomposition and no neighbors, those of QUICK_METERS.

    Arguments, result and NaN are as in `measure`. The cost is that of the smaller Gram matrix, for
    the participation ratio.
    """
    return _measure(QUICK_METERS, views, resolution)


@torch.no_grad()
def _measure(
    meters: Mapping[str, Meter],
    views: Float[Tensor, "views images width"],
    resolution: float | None,
) -> dict[str, float]:
    resolution = resolution_of(views) if resolution is None else resolution
    views = exact(views)
    if not bool(torch.isfinite(views).all()):
        return dict.fromkeys(meters, math.nan)
    embeddings = MeterInput(views, resolution)
    return {name: meter.function(embeddings) for name, meter in meters.items()}
