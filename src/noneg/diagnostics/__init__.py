"""Label-free meters: pure functions of embeddings."""

from noneg.diagnostics.lidar import lidar
from noneg.diagnostics.meters import METERS, QUICK_METERS, Meter, measure, quick_measure
from noneg.diagnostics.spectrum import (
    alpha_req,
    covariance_eigenvalues,
    effective_rank,
    explained_auc,
    nesum,
    participation_ratio,
    rankme,
    stable_rank,
    top_share,
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
from noneg.diagnostics.verdict import State, Verdict, judge, judge_end

__all__ = [
    "METERS",
    "QUICK_METERS",
    "Meter",
    "State",
    "Verdict",
    "alignment",
    "alpha_req",
    "covariance_eigenvalues",
    "effective_rank",
    "explained_auc",
    "judge",
    "judge_end",
    "lidar",
    "mean_cosine",
    "mean_norm",
    "measure",
    "nesum",
    "normalized_std",
    "participation_ratio",
    "quick_measure",
    "rankme",
    "self_clustering",
    "stable_rank",
    "top_share",
    "two_nn_dimension",
    "uniformity",
    "view_retrieval",
]
