"""A predictor that is computed instead of trained."""

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from noneg.methods.base import Embeddings, Method
from noneg.studies.figures import bars, curves
from noneg.studies.judge import higher, survives
from noneg.studies.results import Results
from noneg.studies.study import Claim, Outcome, Study, Variant

_TRAINED = "trained linear predictor"


def alignment(method: Method, e: Embeddings) -> Mapping[str, float | Tensor]:
    """How far the predictor and the correlation of what it predicts from share eigenvectors.

    `commutator` is |WF - FW| / (2 |W| |F|) in Frobenius norms, W the predictor's symmetric part
    and F = E[z z'], uncentred: 0 where the eigenvectors are shared (Tian et al., 2102.06810,
    theorem 3). `rank_w` is the participation ratio of W's spectrum.
    """
    weight: Tensor | None = None
    predictor = getattr(method, "predictor", None)
    if isinstance(predictor, Tensor):
        weight = predictor
    elif isinstance(predictor, nn.Module):
        layers = [each for each in predictor.modules() if isinstance(each, nn.Linear)]
        weight = layers[0].weight if len(layers) == 1 else None
    if weight is None:
        return {"commutator": float("nan"), "rank_w": float("nan"), "asymmetry": float("nan")}
    w = weight.detach().double()
    z = e.z.detach().flatten(0, 1).double()
    f = z.T @ z / len(z)
    symmetric = (w + w.T) / 2
    product = symmetric @ f
    spectrum = torch.linalg.svdvals(w)
    return {
        "commutator": (product - product.T).norm() / (2 * symmetric.norm() * f.norm()),
        "rank_w": spectrum.sum() ** 2 / spectrum.square().sum(),
        "asymmetry": (w - w.T).norm() / (2 * w.norm()),
    }


def _aligns(results: Results) -> Outcome:
    rows = results.of(_TRAINED)
    if len(rows) < 2:
        return Outcome(None, f"too little was run: {len(rows)} of 2 seeds of {_TRAINED}")
    ends = [row.curve("commutator", "meter.csv")[1] for row in rows if row.diverged is None]
    if len(ends) < len(rows) or not all(ends):
        return Outcome(None, f"{len(rows) - len(ends)} of {len(rows)} runs diverged")
    shown = ", ".join(f"{values[0]:.2f} to {values[-1]:.2f}" for values in ends)
    falls = [values[-1] < values[0] / 2 for values in ends]
    holds = True if all(falls) else None if any(falls) else False
    return Outcome(holds, f"relative commutator from the first step to the last: {shown}")


def _draw(results: Results, figure: Figure) -> None:
    left, right = figure.subplots(1, 2)
    bars(left, results, "knn")
    curves(right, results, "commutator", file="meter.csv")


STUDY = Study(
    name="directpred",
    title="Predictors that are computed",
    question="A trained linear predictor is said to align its eigenvectors with those of the "
    "correlation matrix of its input. Does it? Then it could be set from that matrix's eigenvalues "
    "(DirectPred), or from the matrix itself (DirectCopy): how do these do against a trained one?",
    variants=(
        Variant(_TRAINED, {"method": "byol", "options": {"predictor": "linear"}}),
        Variant("trained MLP predictor", {"method": "byol"}),
        Variant("DirectPred", {"method": "directpred"}),
        Variant("DirectCopy", {"method": "directcopy"}),
        Variant(
            "DirectPred, no moving average",
            {"method": "directpred", "options": {"target": "copy"}},
            quick=False,
        ),
        Variant(
            "trained linear, no moving average",
            {"method": "byol", "options": {"predictor": "linear", "target": "copy"}},
            quick=False,
        ),
    ),
    claims=(
        Claim(
            "The eigenvectors of a trained linear predictor align with those of the correlation "
            "matrix: their relative commutator falls to half or less.",
            _aligns,
            "a new network's correlation matrix has few directions, with which a small predictor "
            "nearly commutes; and a short run has few steps to align in.",
        ),
        Claim("Neither DirectPred nor DirectCopy collapses.", survives("DirectPred", "DirectCopy")),
        Claim(
            "DirectPred is better than a trained linear predictor.",
            higher("DirectPred", _TRAINED),
        ),
        Claim(
            "DirectCopy loses no more than 2 points against DirectPred.",
            higher("DirectCopy", "DirectPred", by=-0.02),
        ),
    ),
    papers=(
        "DirectPred (Tian et al., 2102.06810), STL-10, ResNet-18: 77.86 after 100 epochs, against "
        "74.5 of a linear predictor trained by SGD; 80.28 against 75.25 after 500.",
        "ImageNet, 60 / 300 epochs: MLP 64.7 / 72.5, linear 59.4 / 69.9, DirectPred 64.4 / 72.4.",
        "DirectCopy (2110.04947) rivals or beats DirectPred, says its abstract.",
    ),
    draw=_draw,
    settings={"options": {}},
    meter=alignment,
    columns=("knn", "linear", "std_z", "effective_rank_z", "commutator", "asymmetry", "rank_w"),
)
