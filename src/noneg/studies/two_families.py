"""Losses on pairs of images and losses on pairs of coordinates: the identity that links them."""

import math
from collections.abc import Mapping

from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import normalize

from noneg.experiments.figures import bars, curves
from noneg.experiments.judge import close, every, higher
from noneg.experiments.results import Results
from noneg.experiments.study import Claim, Outcome, Study, Variant
from noneg.methods.base import Embeddings, Method

_SAMPLE = ("simclr", "moco")
_DIMENSION = ("vicreg", "barlow_twins")
_NEITHER = ("byol", "simsiam")
_TOLERANCE = 1e-9


def criteria(_method: Method, e: Embeddings) -> Mapping[str, float | Tensor]:
    """Garrido et al. (2022, arXiv 2206.02574): both criteria on the first view of a batch.

    With K = z', M coordinates x N images, in float64 (definition 3.2): L_c = |K'K - diag|^2 over
    pairs of images, L_nc = |KK' - diag|^2 over pairs of coordinates. Theorem 3.3:
    L_nc + sum_j |row j|^4 = L_c + sum_i |column i|^4. `residual` is the difference of the two
    sides, and `difference` that of the two criteria, both relative to the left side. `sample` and
    `dimension` are L_c and L_nc of centered embeddings of unit length, relative to their largest
    value, which embeddings on a line have.
    """
    k = e.z[0].detach().double().T
    l_c, l_nc = _off_diagonal(k.T @ k), _off_diagonal(k @ k.T)
    left = l_nc + k.square().sum(dim=1).square().sum()
    right = l_c + k.square().sum(dim=0).square().sum()
    unit = normalize(k - k.mean(dim=1, keepdim=True), dim=0)
    coordinates, images = unit.shape
    return {
        "residual": (left - right).abs() / left.clamp(min=1e-300),
        "difference": (l_nc - l_c) / left.clamp(min=1e-300),
        "sample": _off_diagonal(unit.T @ unit) / (images * (images - 1)),
        "dimension": _off_diagonal(unit @ unit.T) / (images**2 * (1 - 1 / coordinates)),
    }


def _off_diagonal(matrix: Tensor) -> Tensor:
    squares = matrix.square()
    total: Tensor = squares.sum() - squares.diagonal().sum()
    return total


def _identity_holds(results: Results) -> Outcome:
    worst, count = 0.0, 0
    for run in results.runs:
        residuals = [each for each in run.measured_curve("residual")[1] if math.isfinite(each)]
        worst, count = max([worst, *residuals]), count + len(residuals)
    if not count:
        return Outcome(None, "not enough runs: there is none")
    return Outcome(
        worst < _TOLERANCE, f"largest relative residual in {count} batches of z: {worst:.1e}"
    )


def _draw(results: Results, figure: Figure) -> None:
    left, middle, right = figure.subplots(1, 3)
    curves(left, results, "sample", measured=True, logarithmic=True)
    curves(middle, results, "dimension", measured=True, logarithmic=True)
    bars(right, results, "knn")


STUDY = Study(
    name="two-families",
    chapter=8,
    title="Two families of losses and an identity",
    question="Sample-contrastive losses push images apart; dimension-contrastive losses push "
    "coordinates apart. An identity links the two criteria for any embeddings. Does it hold up to "
    "rounding for embeddings from training? How much do the two criteria and the accuracy differ "
    "between methods of the two families?",
    variants=tuple(
        Variant(
            name,
            {"method": name, "options": {"queue": 1024}} if name == "moco" else {"method": name},
        )
        for name in (*_SAMPLE, *_DIMENSION, *_NEITHER)
    ),
    claims=(
        Claim(
            "The identity of theorem 3.3 holds on every logged batch, up to 1e-9.", _identity_holds
        ),
        Claim(
            "Each method is lower in its own criterion: SimCLR in the one on images, VICReg in the "
            "one on coordinates.",
            every(higher("vicreg", "simclr", "sample"), higher("simclr", "vicreg", "dimension")),
            "by the identity the two criteria are nearly equal, so how low they are depends on how "
            "strongly a loss pushes, not on which criterion it uses.",
        ),
        Claim(
            "The accuracies of SimCLR and VICReg differ by at most 3 points.",
            close("simclr", "vicreg", within=0.03),
        ),
        Claim(
            "The accuracies of SimCLR and Barlow Twins differ by at most 3 points.",
            close("simclr", "barlow_twins", within=0.03),
        ),
    ),
    papers=(
        "Garrido et al. (2206.02574), theorem 3.3, without assumptions: L_nc + sum_j |row j|^4 = "
        "L_c + sum_i |column i|^4. The authors do not call the methods interchangeable; the "
        "theorem does not cover BYOL and SimSiam.",
        "100 epochs on ImageNet: VICReg 68.13, its contrastive form 67.92; SimCLR 66.33, and 68.6 "
        "with VICReg's projector and other settings.",
    ),
    draw=_draw,
    batch_measure=criteria,
    columns=("knn", "linear", "sample", "dimension", "difference", "residual"),
)
