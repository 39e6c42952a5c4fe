"""Losses: pure functions of embeddings [views, batch, width].

They import only torch, and noneg's errors.
"""

from noneg.losses.agreement import distance_to_mean, mean_squared_error, negative_cosine
from noneg.losses.barlow_twins import barlow_twins
from noneg.losses.clusters import (
    assignment_entropies,
    dino,
    sinkhorn,
    swapped_cross_entropy,
    swav,
)
from noneg.losses.coding_rate import coding_rate
from noneg.losses.contrastive import contrastive
from noneg.losses.conventions import (
    BarlowTwinsWeights,
    LeJEPAWeights,
    VICRegWeights,
    VISRegWeights,
    barlow_twins_weights,
    byol_weight,
    lejepa_weights,
    simdino_distortion,
    vicreg_weights,
    visreg_weights,
    w_mse_weight,
)
from noneg.losses.corinfomax import corinfomax, running_covariance
from noneg.losses.distillation import distance_to_target, relational_distance
from noneg.losses.emp_ssl import emp_ssl
from noneg.losses.frossl import frossl
from noneg.losses.hsic import hsic
from noneg.losses.info_nce import info_nce
from noneg.losses.mmcr import mmcr
from noneg.losses.nt_xent import nt_xent
from noneg.losses.patch_prediction import patch_prediction
from noneg.losses.radial import radial_divergence
from noneg.losses.sigreg import sigreg
from noneg.losses.simdino import simdino
from noneg.losses.spectral_contrastive import spectral_contrastive
from noneg.losses.sphere import sphere_discrepancy
from noneg.losses.tico import second_moment, tico
from noneg.losses.triplet import triplet
from noneg.losses.vibcreg import vibcreg
from noneg.losses.vicreg import variance_hinge, vicreg
from noneg.losses.visreg import visreg
from noneg.losses.whitening import w_mse, whiten

__all__ = [
    "BarlowTwinsWeights",
    "LeJEPAWeights",
    "VICRegWeights",
    "VISRegWeights",
    "assignment_entropies",
    "barlow_twins",
    "barlow_twins_weights",
    "byol_weight",
    "coding_rate",
    "contrastive",
    "corinfomax",
    "dino",
    "distance_to_mean",
    "distance_to_target",
    "emp_ssl",
    "frossl",
    "hsic",
    "info_nce",
    "lejepa_weights",
    "mean_squared_error",
    "mmcr",
    "negative_cosine",
    "nt_xent",
    "patch_prediction",
    "radial_divergence",
    "relational_distance",
    "running_covariance",
    "second_moment",
    "sigreg",
    "simdino",
    "simdino_distortion",
    "sinkhorn",
    "spectral_contrastive",
    "sphere_discrepancy",
    "swapped_cross_entropy",
    "swav",
    "tico",
    "triplet",
    "variance_hinge",
    "vibcreg",
    "vicreg",
    "vicreg_weights",
    "visreg",
    "visreg_weights",
    "w_mse",
    "w_mse_weight",
    "whiten",
]
