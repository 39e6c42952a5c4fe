"""What VICReg's variance and covariance hold in place, and what LeJEPA's SIGReg does."""

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from noneg.experiments.figures import bars
from noneg.experiments.judge import SEEDS_NEEDED, close, collapses, higher, not_enough_runs
from noneg.experiments.results import Results
from noneg.experiments.study import Claim, Criterion, Outcome, Study, Variant
from noneg.losses import sigreg, variance_hinge
from noneg.methods.base import Embeddings, Method

FLOOR = math.sqrt(2 * math.pi) * (1 - 1 / math.sqrt(3))
"""The mean of the statistic T of a standard Gaussian, for any number of images and any width."""

AXES = 8
"""Principal axes along which `non_gaussianity` looks."""

_SHRINKING = "vicreg, no variance"
_NARROW, _WIDTH, _WIDE = 16, 64, 512


def held(_method: Method, e: Embeddings) -> Mapping[str, float | Tensor]:
    """What the two losses hold in place, on the views of one batch of n images.

    `spread` is the root mean square of centered embeddings. `statistic` is T / n over all
    directions, and `floors` is T / 1.0594: 1 on average for a standard Gaussian. `sigreg_pull` and
    `hinge_pull` are how fast T / n and VICReg's hinge fall if the spread grows, all embeddings
    moving away from their mean. `non_gaussianity` is T along the first principal axes, scaled to
    variance 1, relative to that of a Gaussian batch: it sees what is left after mean, variance and
    correlation.
    """
    z = e.z.detach().double()
    centered = z - z.mean(dim=1, keepdim=True)
    spread = centered.square().mean().sqrt().clamp(min=1e-12)
    with torch.enable_grad():
        z.requires_grad_()
        terms = {"sigreg": sigreg(z), "hinge": variance_hinge(z)}
        slopes = {name: torch.autograd.grad(term, z)[0] for name, term in terms.items()}
    statistic = terms["sigreg"].detach()
    images = z.shape[1]
    axes = torch.linalg.svd(centered, full_matrices=False).U[..., :AXES]
    return {
        "spread": spread,
        "statistic": statistic,
        "floors": statistic * images / FLOOR,
        **{f"{name}_pull": -(slope * centered).sum() / spread for name, slope in slopes.items()},
        "non_gaussianity": _mean_statistic(axes.transpose(1, 2).flatten(0, 1)) / _usual(images),
    }


def _mean_statistic(along: Tensor) -> Tensor:
    """T / n of each row of centered numbers, scaled to variance 1; the mean over the rows."""
    standard = along / along.square().mean(dim=1, keepdim=True).sqrt()
    return sigreg(standard[..., None])


@cache
def _usual(images: int) -> float:
    """The same for a Gaussian batch, whose principal axes are random."""
    # The run's own random numbers must not change.
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(1_000, images, generator=generator, dtype=torch.float64)
    return float(_mean_statistic(drawn - drawn.mean(dim=1, keepdim=True)))


def _in_each_run(
    variant: str, holds: Callable[[Mapping[str, float]], bool], *shown: str
) -> Criterion:
    """The final numbers of this variant, with every seed."""

    def criterion(results: Results) -> Outcome:
        runs = results.of(variant)
        if len(runs) < SEEDS_NEEDED:
            return not_enough_runs(variant, len(runs))
        means = (f"{name.replace('_', ' ')} {results.mean(variant, name):.3g}" for name in shown)
        held_by_all = all(run.diverged is None and holds(run.numbers) for run in runs)
        return Outcome(held_by_all, f"{variant}: {', '.join(means)}, n = {len(runs)}")

    return criterion


def _pull_by_spread(axis: Axes, results: Results) -> None:
    for run in results.of(_SHRINKING):
        _, spread = run.measured_curve("spread")
        for term, color in (("hinge", "#3182bd"), ("sigreg", "#e6550d")):
            _, pull = run.measured_curve(f"{term}_pull")
            label = {"hinge": "variance hinge", "sigreg": "SIGReg"}[term] if not run.seed else None
            axis.plot(spread, pull, ".", color=color, label=label, markersize=3)
    axis.set_xscale("log")
    axis.set_title(_SHRINKING, fontsize=8)
    axis.set_xlabel("spread of z", fontsize=8)
    axis.set_ylabel("outward pull", fontsize=8)
    axis.tick_params(labelsize=7)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=6)


def _draw(results: Results, figure: Figure) -> None:
    rank, floors, pulls = figure.subplots(1, 3)
    bars(rank, results, "effective_rank_z")
    bars(floors, results, "floors")
    floors.set_yticks([])
    floors.set_xscale("log")
    floors.set_xlabel("T / 1.0594 (1: a Gaussian)", fontsize=8)
    _pull_by_spread(pulls, results)


def _vicreg(name: str, quick: bool = True, **options: Any) -> Variant:
    return Variant(name, {"method": "vicreg", "options": options}, quick)


def _lejepa(name: str, quick: bool = True, **options: Any) -> Variant:
    return Variant(name, {"method": "lejepa", "options": options}, quick)


def _width(width: int) -> dict[str, Any]:
    return {"projector": [256, width]}


STUDY = Study(
    name="distribution-matching",
    chapter=9,
    title="Two moments, or a whole distribution",
    question="VICReg keeps variances up and correlations down. LeJEPA's SIGReg compares the whole "
    "distribution with a standard Gaussian, in all directions at once. What does each hold in "
    "place? SIGReg's statistic T / n is flat at total collapse (0.4089), has a floor (1.0594 / n) "
    "for a true Gaussian, and depends on few directions by only 0.24 (1 / rank - 1 / width): do "
    "these blind spots matter in training? Here n is 64, the weight of T / n is 10, and that of "
    "agreement is 1. The authors' lambda of 0.02 weights T, so it is a weight of 1.3 in batches "
    "of 64 and of 5.2 in batches of 256; 0.02 forgets the factor n.",
    variants=(
        _vicreg("vicreg"),
        _vicreg(_SHRINKING, variance=0.0),
        _vicreg("vicreg, no covariance", covariance=0.0),
        _vicreg(f"vicreg, width {_NARROW}", False, **_width(_NARROW)),
        _vicreg(f"vicreg, width {_WIDE}", False, **_width(_WIDE)),
        _lejepa("lejepa"),
        _lejepa(f"lejepa, width {_NARROW}", False, **_width(_NARROW)),
        _lejepa(f"lejepa, width {_WIDE}", False, **_width(_WIDE)),
        _lejepa("lejepa, weight 0.02", sigreg=0.02),
        _lejepa("lejepa, weight 1.3", False, sigreg=1.3),
        _lejepa("lejepa, weight 5.2", False, sigreg=5.2),
        _lejepa("lejepa, 4 directions", slices=4),
        _lejepa("lejepa, 256 directions", False, slices=256),
    ),
    claims=(
        Claim(
            "When embeddings have shrunk to a point, SIGReg pulls them apart with less than a "
            "tenth of the force of VICReg's variance term, at equal weights.",
            _in_each_run(
                _SHRINKING,
                lambda run: run["sigreg_pull"] < run["hinge_pull"] / 10,
                "spread",
                "sigreg_pull",
                "hinge_pull",
            ),
        ),
        Claim(
            "With a weight that forgets the factor n, LeJEPA collapses.",
            collapses("lejepa, weight 0.02"),
        ),
        Claim(
            "So the authors' lambda means another method at another batch size: with the weight "
            "that it has at 256 images, the rank of `z` is higher than with that at 64.",
            higher("lejepa, weight 5.2", "lejepa, weight 1.3", "effective_rank_z"),
        ),
        Claim(
            f"LeJEPA fills a width of {_NARROW}: its rank is more than half of it.",
            _in_each_run(
                f"lejepa, width {_NARROW}",
                lambda run: run["effective_rank_z"] > _NARROW / 2,
                "effective_rank_z",
                "floors",
            ),
        ),
        Claim(
            f"SIGReg hardly sees a low rank in a width of {_WIDE}: the statistic is within twice "
            "its floor although the rank is less than a quarter of the width.",
            _in_each_run(
                f"lejepa, width {_WIDE}",
                lambda run: run["floors"] < 2 and run["effective_rank_z"] < _WIDE / 4,
                "effective_rank_z",
                "floors",
            ),
        ),
        Claim(
            f"With a width of {_WIDE}, VICReg has a higher rank than LeJEPA.",
            higher(f"vicreg, width {_WIDE}", f"lejepa, width {_WIDE}", "effective_rank_z"),
        ),
        Claim(
            "SIGReg sees what VICReg's covariance term prevents: without it the statistic is "
            "higher.",
            higher("vicreg, no covariance", "vicreg", "statistic"),
        ),
        Claim(
            f"With a width of {_NARROW}, VICReg leaves embeddings less Gaussian than LeJEPA does.",
            higher(f"vicreg, width {_NARROW}", f"lejepa, width {_NARROW}", "non_gaussianity"),
        ),
        Claim(
            "With four random directions per step, the statistic over all directions ends higher "
            "than in closed form.",
            higher("lejepa, 4 directions", "lejepa", "statistic"),
        ),
        Claim(
            "256 random directions per step are as good as all: within 3 points.",
            close("lejepa, 256 directions", "lejepa", within=0.03),
        ),
        Claim(
            "The accuracies of LeJEPA and VICReg differ by at most 3 points.",
            close("lejepa", "vicreg", within=0.03),
        ),
    ),
    papers=(
        "LeJEPA (2511.08544): SIGReg on random directions, lambda 0.05 (0.02 in the authors' "
        "example, with batches of 256 and a width of 16). KerJEPA (2512.19605) has the closed form "
        "over all directions; Imagenette, 800 epochs, width 128: sliced 91.13, in closed form "
        "91.13.",
        "VISReg (2606.02572): with 128 instead of 1,024 directions SIGReg loses 13.9 points.",
        "CIFAR-10, ResNet-18, 300 epochs (eb_jepa): SIGReg 91.0, VICReg 90.1; 1,000 epochs (PEIRA, "
        "2605.17671): SIGReg 92.3, VICReg 90.9.",
    ),
    draw=_draw,
    settings={"options": _width(_WIDTH)},
    batch_measure=held,
    columns=(
        *("knn", "linear", "spread", "effective_rank_z", "statistic", "floors"),
        *("sigreg_pull", "hinge_pull", "non_gaussianity"),
    ),
)
