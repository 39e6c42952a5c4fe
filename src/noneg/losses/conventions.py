"""Translations of other conventions' weights into weights for noneg's losses.

Several different functions are called "VICReg" or "Barlow Twins": see docs/conventions.md, which
also lists the losses whose weights are the authors' and need no translation.
"""

from dataclasses import dataclass

from noneg.errors import NonegError


@dataclass(frozen=True)
class VICRegWeights:
    """Weights of `noneg.losses.vicreg`, in the convention of the authors' code."""

    invariance: float
    variance: float
    covariance: float


@dataclass(frozen=True)
class BarlowTwinsWeights:
    """Weights of `noneg.losses.barlow_twins`; the authors' code has invariance = 1."""

    invariance: float
    redundancy: float


@dataclass(frozen=True)
class LeJEPAWeights:
    """Weights of `noneg.losses.distance_to_mean` and `noneg.losses.sigreg` in LeJEPA."""

    invariance: float
    sigreg: float


@dataclass(frozen=True)
class VISRegWeights:
    """Weights of `noneg.losses.visreg`, by the names of its arguments."""

    invariance: float
    center: float
    scale: float
    shape: float


def vicreg_weights(
    convention: str,
    *,
    invariance: float,
    variance: float,
    covariance: float,
    width: int,
) -> VICRegWeights:
    """The weights that make noneg's loss of two views equal to another convention's.

    Args:
        convention: "authors" (facebookresearch/vicreg), "lightly" and "stable_pretraining" are
            noneg's own. In "pseudocode" (the paper's algorithm 1) and "solo_learn", the variance
            terms of the views are added, not averaged. "paper" (equations 1 to 6) does that too,
            and its invariance term is a sum over the width. In "eb_jepa", variance terms are added,
            and covariances averaged over width (width - 1) entries; it has no weight on the
            invariance: give 1.
        invariance: weight of the invariance term in that convention.
        variance: weight of the variance term.
        covariance: weight of the covariance term.
        width: width of the projection, >= 1; >= 2 for eb_jepa.

    Raises:
        NonegError: unknown convention, or a width that is too small.
    """
    if convention in ("authors", "lightly", "stable_pretraining"):
        return VICRegWeights(invariance, variance, covariance)
    if convention in ("pseudocode", "solo_learn"):
        return VICRegWeights(invariance, 2 * variance, covariance)
    if convention == "paper":
        return VICRegWeights(width * invariance, 2 * variance, covariance)
    if convention == "eb_jepa":
        if width < 2:
            raise NonegError(
                "eb_jepa's VICReg averages over pairs of coordinates and needs a width of at least "
                f"2, not {width}"
            )
        return VICRegWeights(invariance, 2 * variance, covariance / (width - 1))
    raise _unknown(
        "VICReg",
        convention,
        "authors, lightly, stable_pretraining, pseudocode, solo_learn, paper, eb_jepa",
    )


def barlow_twins_weights(
    convention: str, *, redundancy: float, scale: float = 1.0
) -> BarlowTwinsWeights:
    """The weights that make noneg's loss equal to another convention's.

    The paper's algorithm 1 and stable-pretraining divide by the unbiased standard deviation and
    then by the batch, which multiplies every correlation by (batch - 1) / batch. No weights can
    undo that.

    Args:
        convention: "authors" (facebookresearch/barlowtwins), "paper" (equations 1 and 2) and
            "lightly" are noneg's own. "solo_learn" multiplies the whole loss by `scale`.
        redundancy: lambda in that convention.
        scale: solo-learn's scale_loss (0.1 in its CIFAR settings, 0.025 by default).

    Raises:
        NonegError: unknown convention, or a scale for a convention that has none.
    """
    if convention in ("authors", "paper", "lightly"):
        if scale != 1:
            raise NonegError(f"Barlow Twins has no scale in the convention '{convention}'")
        return BarlowTwinsWeights(1.0, redundancy)
    if convention == "solo_learn":
        return BarlowTwinsWeights(scale, scale * redundancy)
    raise _unknown("Barlow Twins", convention, "authors, paper, lightly, solo_learn")


def lejepa_weights(
    convention: str, *, weight: float, batch: int, width: int | None = None
) -> LeJEPAWeights:
    """The weights that make noneg's loss equal to another convention's.

    stable-pretraining tests the embeddings of all views together, not each view's, and no weights
    can undo that.

    Args:
        convention: "authors" (rbalestr-lab/lejepa and its minimal example) and "lightly" have
            (1 - weight) invariance + weight T, with T = batch * SIGReg. "paper" also sums the
            invariance over the width. "eb_jepa" (two views) has weight T / batch and, as
            invariance, the difference between the two views, which is 4 times that to their mean.
        weight: lambda in that convention.
        batch: images per step, over all processes.
        width: width of the projection; only "paper" needs it.

    Raises:
        NonegError: unknown convention, or no width for the paper's.
    """
    if convention in ("authors", "lightly"):
        return LeJEPAWeights(1 - weight, weight * batch)
    if convention == "paper":
        if width is None:
            raise NonegError("the paper's LeJEPA sums over the width: give lejepa_weights a width")
        return LeJEPAWeights((1 - weight) * width, weight * batch)
    if convention == "eb_jepa":
        return LeJEPAWeights(4.0, weight)
    raise _unknown("LeJEPA", convention, "authors, lightly, paper, eb_jepa")


def visreg_weights(weight: float) -> VISRegWeights:
    """The weights of VISReg's four terms for the single one of its authors (HaiyuWu/visreg).

    Their loss is (1 - weight) invariance + weight (center + scale + shape), all means as in noneg.
    lightly and stable-pretraining have the same convention.

    Args:
        weight: lambda: 0.9 for ImageNet, 0.6 for ten of its classes.
    """
    return VISRegWeights(1 - weight, weight, weight, weight)


def w_mse_weight(convention: str, *, width: int) -> float:
    """The factor on `noneg.losses.w_mse` that gives another convention's loss.

    solo-learn's loss has the authors' value, but no gradient flows into the second view, and no
    factor can undo that.

    Args:
        convention: "authors" (htdt/self-supervised) and "lightly" have 2 - 2 cos, with
            `per_view=True`. "stable_pretraining" has the mean over the width of the squared
            difference of unit vectors, and whitens both views by one covariance: `per_view=False`.
            It whitens symmetrically, which turns both views alike and changes no cosine.
        width: width of the projection, >= 1.

    Raises:
        NonegError: unknown convention.
    """
    if convention in ("authors", "lightly"):
        return 1.0
    if convention == "stable_pretraining":
        return 1 / width
    raise _unknown("W-MSE", convention, "authors, lightly, stable_pretraining")


def simdino_distortion(epsilon: float, *, processes: int, reduced: bool = False) -> float:
    """The distortion of `noneg.losses.simdino` for the authors' epsilon on several processes.

    Unless they are told to reduce it, each of the authors' processes has the covariance of its own
    images, and divides by the number of all. The result is equal if all processes' images have the
    same second moments, and about equal if each has more images than the projection is wide. With
    fewer, no distortion gives the same coding rate: a small batch fills fewer directions.

    Args:
        epsilon: `--eps` of RobinWu218/SimDINO.
        processes: number of processes in that run.
        reduced: whether that run had `--reduce_cov 1`, which adds up the covariances.
    """
    return epsilon if reduced else epsilon * processes


def byol_weight(convention: str) -> float:
    """The factor on noneg's BYOL loss that gives the gradient of another convention's.

    It is a factor on the learning rate with SGD, whose steps are proportional to the gradient. It
    changes nothing with AdamW, and only biases and norms with LARS.

    Args:
        convention: "sum", 2 - 2 cos summed over both directions (the paper, its authors' code,
            solo-learn and noneg); "mean", its mean over both; or "negative_cosine", the mean of
            -cos over both (SimSiam's loss, and lightly's examples of BYOL).

    Raises:
        NonegError: unknown convention.
    """
    weights = {"sum": 1.0, "mean": 0.5, "negative_cosine": 0.25}
    if convention not in weights:
        raise _unknown("BYOL", convention, ", ".join(weights))
    return weights[convention]


def _unknown(loss: str, convention: str, known: str) -> NonegError:
    return NonegError(f"unknown convention '{convention}' of {loss}; known are: {known}")
