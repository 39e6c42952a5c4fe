"""All meters of one set of embeddings at once, and what to know of each."""

import math
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from noneg.diagnostics.lidar import lidar
from noneg.diagnostics.resolution import exact, resolution_of
from noneg.diagnostics.spectrum import (
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
class Meter:
    """What to know of a meter to read it.

    Attributes:
        title: a name for people.
        better: which way is better, all else equal.
        low: the least it can be, or None where there is no bound.
        high: the most it can be, or None where there is no bound or it depends on N and D.
        blind: what it cannot see, in one sentence.
    """

    title: str
    better: Literal["higher", "lower", "neither"]
    low: float | None
    high: float | None
    blind: str


METERS: dict[str, Meter] = {
    "std": Meter(
        "Normalized std", "higher", 0.0, 1.0, "Blind to collapse onto a line or a few directions."
    ),
    "effective_rank": Meter(
        "Effective rank", "higher", 1.0, None, "Blind to scale; noise has the highest rank of all."
    ),
    "rankme": Meter(
        "RankMe", "higher", 1.0, None, "Not centered: a mean that all images share hides the rest."
    ),
    "participation_ratio": Meter(
        "Participation ratio", "higher", 1.0, None, "Blind to a tail of many small directions."
    ),
    "stable_rank": Meter(
        "Stable rank", "higher", 1.0, None, "Sees the strongest direction alone, often the mean."
    ),
    "top_share": Meter(
        "Share of the first direction", "lower", 0.0, 1.0, "Blind to all but the first direction."
    ),
    "nesum": Meter("NESum", "higher", 1.0, None, "Blind to all but the first direction."),
    "alpha_req": Meter(
        "alpha-ReQ",
        "neither",
        0.0,
        None,
        "Blind to the first ten directions and to missing ones; near 1 is best.",
    ),
    "explained_auc": Meter(
        "Area under explained variance", "lower", 0.5, 1.0, "Blind to scale, and to noise as such."
    ),
    "alignment": Meter(
        "Alignment", "lower", 0.0, 4.0, "Blind to collapse: equal embeddings are best at it."
    ),
    "uniformity": Meter(
        "Uniformity", "lower", -8.0, 0.0, "Nearly blind to collapse onto a few tens of directions."
    ),
    "mean_cosine": Meter(
        "Mean cosine", "lower", -1.0, 1.0, "Blind to collapse onto a line through the origin."
    ),
    "self_clustering": Meter(
        "Self-clustering", "lower", None, 1.0, "Blind to signs, and to noise as such."
    ),
    "view_retrieval": Meter(
        "View retrieval", "higher", 0.0, 1.0, "Blind to what tells the images apart, be it color."
    ),
    "lidar": Meter(
        "LiDAR", "higher", 1.0, None, "With few views, decided by directions no view moves."
    ),
    "two_nn_dimension": Meter(
        "TwoNN dimension", "neither", 0.0, None, "Takes noise between neighbors for dimensions."
    ),
    "norm": Meter("Mean norm", "neither", 0.0, None, "Blind to directions."),
}
"""The meters of `measure`, in its order."""

QUICK_METERS = ("std", "norm", "mean_cosine", "alignment", "participation_ratio")
"""The meters of `quick_measure`, in its order."""


@torch.no_grad()
def measure(
    views: Float[Tensor, "views images width"], *, resolution: float | None = None
) -> dict[str, float]:
    """All meters at once, each with its docstring in `spread`, `spectrum`, `lidar`, `neighbors`.

    Alignment, retrieval and LiDAR are of all views, and NaN for a single one. All others are of the
    first view.

    Never fails on collapsed embeddings. Where all are equal: the spread is 0, the ranks and shares
    are 1, uniformity 0, retrieval 1 / N; alpha-ReQ and TwoNN, which then mean nothing, are NaN; so
    are, of zero vectors, the cosine and self-clustering.

    Cost: two decompositions, one of centered and one of uncentered embeddings, of size min(N, D),
    one more for LiDAR, and memory for 1,024 rows of an N x N matrix.

    Args:
        views: embeddings [V, N, D] of any float type, grouped by view; V and N at least 1.
        resolution: relative precision to which the embeddings are known, where that is coarser
            than their type (see `covariance_eigenvalues`).

    Returns:
        A number for each key of METERS, in that order; all NaN where an embedding is not finite.
    """
    resolution = resolution_of(views) if resolution is None else resolution
    views = exact(views)
    if not bool(torch.isfinite(views).all()):
        return dict.fromkeys(METERS, math.nan)
    z = views[0]
    centered = covariance_eigenvalues(z, resolution=resolution)
    uncentered = covariance_eigenvalues(z, centered=False, resolution=resolution)
    return {
        "std": normalized_std(z),
        "effective_rank": effective_rank_of(centered),
        "rankme": rankme_of(uncentered),
        "participation_ratio": participation_ratio_of(centered),
        "stable_rank": stable_rank_of(uncentered),
        "top_share": top_share_of(centered),
        "nesum": nesum_of(centered),
        "alpha_req": alpha_req_of(centered),
        "explained_auc": explained_auc_of(centered),
        "alignment": alignment(views),
        "uniformity": uniformity(z),
        "mean_cosine": mean_cosine(z),
        "self_clustering": self_clustering(z),
        "view_retrieval": view_retrieval(views, resolution=resolution),
        "lidar": lidar(views, resolution=resolution),
        "two_nn_dimension": two_nn_dimension(z, resolution=resolution),
        "norm": mean_norm(z),
    }


@torch.no_grad()
def quick_measure(
    views: Float[Tensor, "views images width"], *, resolution: float | None = None
) -> dict[str, float]:
    """The meters that need no decomposition and no neighbors.

    The keys are QUICK_METERS, each as in `measure`, NaN included. The cost is that of the smaller
    Gram matrix, for the participation ratio.
    """
    resolution = resolution_of(views) if resolution is None else resolution
    views = exact(views)
    if not bool(torch.isfinite(views).all()):
        return dict.fromkeys(QUICK_METERS, math.nan)
    z = views[0]
    return {
        "std": normalized_std(z),
        "norm": mean_norm(z),
        "mean_cosine": mean_cosine(z),
        "alignment": alignment(views),
        "participation_ratio": participation_ratio(z, resolution=resolution),
    }
