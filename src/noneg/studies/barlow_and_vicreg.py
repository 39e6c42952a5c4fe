"""Barlow Twins and VICReg without each of their terms, at several widths, with two networks."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from noneg.experiments.figures import bar_panels
from noneg.experiments.judge import collapses, every, higher, survives
from noneg.experiments.study import Claim, Study, Variant
from noneg.methods.base import Embeddings, Method

_OTHER = "test_byobnet"


def redundancy(_method: Method, e: Embeddings) -> Mapping[str, float | Tensor]:
    """The mean squared correlation between two coordinates of one view's embeddings.

    0: all are uncorrelated; 1: all are copies. For n independent images it is 1 / (n - 1).
    """
    z = e.z[0].detach().double()
    z = z - z.mean(dim=0)
    z = z / z.norm(dim=0).clamp(min=1e-12)
    width = z.shape[1]
    squares = (z.T @ z).square()
    return {"redundancy": (squares.sum() - squares.diagonal().sum()) / (width * (width - 1))}


def _vicreg(name: str, quick: bool = True, **options: Any) -> Variant:
    return Variant(name, {"method": "vicreg", "options": options}, quick)


def _weighted(
    invariance: int, variance: int, covariance: int, quick: bool = True, **more: Any
) -> Variant:
    weights = {"invariance": invariance, "variance": variance, "covariance": covariance}
    width = f", width {more['projector'][-1]}" if more else ""
    name = f"vicreg ({invariance}, {variance}, {covariance}){width}"
    return _vicreg(name, quick, **weights, **more)


def _barlow(name: str, quick: bool = True, **options: Any) -> Variant:
    return Variant(name, {"method": "barlow_twins", "options": options}, quick)


def _two(objective: str, second: str) -> Variant:
    options = {"objective": objective, "second": second}
    what = "separate weights" if second == "same" else second
    return Variant(f"{objective}, {what}", {"method": "two_networks", "options": options}, False)


STUDY = Study(
    name="barlow-and-vicreg",
    chapter=7,
    title="Barlow Twins and VICReg, term by term",
    question="These two losses keep the variance of each coordinate of the embedding high and "
    "reduce the correlation between coordinates. What happens without each term, with other "
    "coefficients, with narrow and with wide projectors? How much redundancy remains? Can the two "
    "branches be two different networks?",
    variants=(
        _weighted(25, 25, 1),
        _weighted(25, 0, 0),
        _weighted(25, 0, 1),
        _weighted(25, 25, 0),
        _weighted(0, 25, 1, False),
        _weighted(1, 1, 1),
        _weighted(1, 1, 1, False, projector=[256, 8192]),
        _weighted(10, 10, 1, False),
        _vicreg("vicreg, width 64", False, projector=[256, 64]),
        _vicreg("vicreg, width 1024", False, projector=[256, 1024]),
        _barlow("barlow_twins"),
        _barlow("barlow_twins, diagonal only", redundancy=0.0),
        _barlow("barlow_twins, off-diagonal only", invariance=0.0),
        _barlow("barlow_twins, lambda 0.05", False, redundancy=0.05),
        _barlow("barlow_twins, width 1024", False, projector=[256, 1024]),
        _two("vicreg", "same"),
        _two("vicreg", _OTHER),
        _two("barlow_twins", _OTHER),
    ),
    claims=(
        Claim(
            "VICReg without its variance term collapses.",
            collapses("vicreg (25, 0, 0)", "vicreg (25, 0, 1)"),
        ),
        Claim(
            "VICReg without its covariance term does not collapse, is worse, and keeps more "
            "redundancy.",
            every(
                survives("vicreg (25, 25, 0)"),
                higher("vicreg (25, 25, 1)", "vicreg (25, 25, 0)"),
                higher("vicreg (25, 25, 0)", "vicreg (25, 25, 1)", "redundancy"),
            ),
        ),
        Claim(
            "VICReg without its invariance term is worse.",
            higher("vicreg (25, 25, 1)", "vicreg (0, 25, 1)"),
        ),
        Claim(
            "VICReg (1, 1, 1) collapses.",
            collapses("vicreg (1, 1, 1)"),
            "the covariance term is a sum over pairs of coordinates divided by the number of "
            "coordinates, so its weight is 64 times larger with the paper's 8,192 coordinates than "
            "with 128.",
        ),
        Claim(
            "VICReg (1, 1, 1) collapses with 8,192 coordinates.",
            collapses("vicreg (1, 1, 1), width 8192"),
            "a covariance term that outweighs the others removes what the coordinates share, which "
            "is also what the views share, and leaves noise in many directions. No meter of "
            "collapse shows this, but accuracy does.",
        ),
        Claim(
            "Barlow Twins with its diagonal term alone does not collapse, and is worse.",
            every(
                survives("barlow_twins, diagonal only"),
                higher("barlow_twins", "barlow_twins, diagonal only"),
            ),
        ),
        Claim(
            "Barlow Twins with its off-diagonal term alone is worse.",
            higher("barlow_twins", "barlow_twins, off-diagonal only"),
        ),
        Claim(
            "VICReg is better with a wider projector.",
            higher("vicreg, width 1024", "vicreg, width 64"),
        ),
        Claim(
            "Two networks without shared weights do not collapse, whether their architectures are "
            "the same or different.",
            survives("vicreg, separate weights", f"vicreg, {_OTHER}", f"barlow_twins, {_OTHER}"),
        ),
    ),
    papers=(
        "VICReg (2105.04906), ImageNet, 100 epochs: invariance only and invariance + covariance "
        "collapse, invariance + variance 57.5, (1, 1, 1) collapses, (10, 10, 1) 68.2, (25, 25, 1) "
        "68.6. Widths from 256 to 8192: 55.9 to 68.6; Garrido et al. (2206.02574) reached 65.0 at "
        "256 with tuning and a larger projector.",
        "Barlow Twins (2103.03230), 300 epochs: 71.4; diagonal only 57.3, off-diagonal only 0.1.",
        "Two networks (VICReg, table 5): shared 68.6, separate weights 66.5, ResNet-50 and -101 "
        "68.1, ResNet-50 and ViT-S 66.2; Barlow Twins 68.7, 64.2, 65.3, 63.9; not possible for "
        "BYOL.",
    ),
    draw=bar_panels("knn", "std_z", "redundancy"),
    batch_measure=redundancy,
    columns=("knn", "linear", "std_z", "effective_rank_z", "redundancy", "loss"),
)
