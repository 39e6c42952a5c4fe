"""A predictor that is computed instead of trained."""

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from noneg.experiments.figures import bars, curves
from noneg.experiments.judge import SEEDS_NEEDED, higher, not_enough_runs, survives
from noneg.experiments.results import Results
from noneg.experiments.study import Claim, Outcome, Study, Variant
from noneg.methods.base import Embeddings, Method

_TRAINED = "trained linear predictor"
_NUMBERS = ("aligned", "proportional", "commutator", "rank_w", "asymmetry")


def predictor_and_correlation(method: Method, e: Embeddings) -> Mapping[str, float | Tensor]:
    """How closely a linear predictor W follows the uncentered correlation F = E[z z'].

    Let v be the eigenvectors of F and s its eigenvalues (Tian et al., 2102.06810, sections 3, 4):

    - `aligned`, from -1 to 1: the mean cosine between v and Wv, weighted by s. 1 if all v are also
      eigenvectors of W, with positive eigenvalues; about d^-1/2 if W is independent of F.
    - `proportional`, from -1 to 1: the correlation over v between v'Wv and the root of s. In
      theory, the eigenvalues of W are proportional to that root, up to a constant.
    - `commutator`: |WF - FW| / (2 |W| |F|) in Frobenius norms, for the symmetric part of W. 0 if
      W and F share their eigenvectors, but only (2 d)^-1/2 for large independent matrices.
    - `rank_w`: the participation ratio of W's singular values; `asymmetry`: |W - W'| / (2 |W|).
    """
    weight: Tensor | None = None
    predictor = getattr(method, "predictor", None)
    if isinstance(predictor, Tensor):
        weight = predictor
    elif isinstance(predictor, nn.Module):
        layers = [each for each in predictor.modules() if isinstance(each, nn.Linear)]
        weight = layers[0].weight if len(layers) == 1 else None
    if weight is None:
        return dict.fromkeys(_NUMBERS, float("nan"))
    w = weight.detach().double()
    z = e.z.detach().flatten(0, 1).double()
    f = z.T @ z / len(z)
    s, v = torch.linalg.eigh(f)
    s = s.clamp(min=0)
    image = w @ v
    along = (v * image).sum(dim=0)
    symmetric = (w + w.T) / 2
    product = symmetric @ f
    spectrum = torch.linalg.svdvals(w)
    return {
        "aligned": (s * along / image.norm(dim=0).clamp(min=1e-12)).sum() / s.sum(),
        "proportional": torch.corrcoef(torch.stack([along, s.sqrt()]))[0, 1],
        "commutator": (product - product.T).norm() / (2 * symmetric.norm() * f.norm()),
        "rank_w": spectrum.sum() ** 2 / spectrum.square().sum(),
        "asymmetry": (w - w.T).norm() / (2 * w.norm()),
    }


def _aligns(results: Results) -> Outcome:
    runs = results.of(_TRAINED)
    if len(runs) < SEEDS_NEEDED:
        return not_enough_runs(_TRAINED, len(runs))
    ends = [run.measured_curve("aligned")[1] for run in runs if run.diverged is None]
    if len(ends) < len(runs) or not all(ends):
        return Outcome(None, f"{len(runs) - len(ends)} of {len(runs)} runs diverged")
    shown = ", ".join(f"{values[0]:.2f} to {values[-1]:.2f}" for values in ends)
    aligned = [values[0] < 0.5 < values[-1] for values in ends]
    holds = True if all(aligned) else None if any(aligned) else False
    return Outcome(holds, f"mean cosine from the first step to the last: {shown}")


def _draw(results: Results, figure: Figure) -> None:
    left, middle, right = figure.subplots(1, 3)
    bars(left, results, "knn")
    curves(middle, results, "aligned", measured=True)
    curves(right, results, "proportional", measured=True)


STUDY = Study(
    name="directpred",
    chapter=6,
    title="Computed predictors",
    question="According to the theory, a trained linear predictor aligns its eigenvectors with "
    "those of the correlation matrix of its input. Does it? If so, the predictor can be computed "
    "from that matrix's eigenvalues (DirectPred) or be a copy of the matrix itself (DirectCopy). "
    "How do these compare with a trained predictor?",
    variants=(
        Variant(_TRAINED, {"method": "byol", "options": {"predictor": "linear"}}),
        Variant("trained MLP predictor", {"method": "byol"}),
        Variant("DirectPred", {"method": "directpred"}),
        Variant("DirectCopy", {"method": "directpred", "options": {"predictor": "copy"}}),
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
            "A trained linear predictor W aligns with the correlation matrix of its input: the "
            "mean cosine between the eigenvectors v and Wv, weighted by the eigenvalues, rises "
            "from below 0.5 to above 0.5.",
            _aligns,
        ),
        Claim("Neither DirectPred nor DirectCopy collapses.", survives("DirectPred", "DirectCopy")),
        Claim(
            "DirectPred is better than a trained linear predictor.",
            higher("DirectPred", _TRAINED),
        ),
        Claim(
            "DirectCopy is at most 2 points below DirectPred.",
            higher("DirectCopy", "DirectPred", by=-0.02),
        ),
    ),
    papers=(
        "DirectPred (Tian et al., 2102.06810), STL-10, ResNet-18: 77.86 after 100 epochs, against "
        "74.5 with a linear predictor trained by SGD; 80.28 against 75.25 after 500.",
        "ImageNet, 60 / 300 epochs: MLP 64.7 / 72.5, linear 59.4 / 69.9, DirectPred 64.4 / 72.4.",
        "DirectCopy rivals or beats DirectPred, according to its abstract (2110.04947).",
    ),
    draw=_draw,
    settings={"options": {}},
    batch_measure=predictor_and_correlation,
    columns=("knn", "linear", "std_z", "effective_rank_z", *_NUMBERS),
)
