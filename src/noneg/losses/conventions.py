"""Weights from other conventions, as those that make noneg's losses the same function.

Several functions go by the name "VICReg" or "Barlow Twins". docs/conventions.md has the table.
"""

from dataclasses import dataclass

from noneg.errors import NonegError


@dataclass(frozen=True)
class VICRegWeights:
    """Weights of `noneg.losses.vicreg`, which are those of the authors' code."""

    invariance: float
    variance: float
    covariance: float


@dataclass(frozen=True)
class BarlowTwinsWeights:
    """Weights of `noneg.losses.barlow_twins`; the authors' code has invariance = 1."""

    invariance: float
    redundancy: float


def vicreg_weights(
    convention: str,
    *,
    invariance: float,
    variance: float,
    covariance: float,
    width: int,
) -> VICRegWeights:
    """The weights of noneg's loss for two views, from those of another convention.

    Args:
        convention: "authors" (facebookresearch/vicreg), "lightly", "stable_pretraining": noneg's
            own. "pseudocode" (the paper's algorithm 1), "solo_learn": the views' variance terms
            are added, not averaged. "paper" (equations 1 to 6): that, and the invariance term is a
            sum over the width. "eb_jepa": variance terms added, covariances averaged over
            width (width - 1) entries; it has no weight of the invariance: give 1.
        invariance: weight of the invariance term there.
        variance: weight of the variance term.
        covariance: weight of the covariance term.
        width: of the projection, >= 1; 2 at least for eb_jepa.

    Raises:
        NonegError: no such convention, or no such width.
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
                f"eb_jepa's VICReg averages over pairs of coordinates and needs a width of 2 "
                f"at least, not {width}"
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
    """The weights of noneg's loss from those of another convention.

    The paper's algorithm 1 and stable-pretraining divide by the unbiased deviation and then by the
    batch, which shrinks every correlation by (batch - 1) / batch. No weights undo that.

    Args:
        convention: "authors" (facebookresearch/barlowtwins), "paper" (equations 1 and 2),
            "lightly": noneg's own. "solo_learn": the whole loss is multiplied by `scale`.
        redundancy: lambda there.
        scale: solo-learn's scale_loss (0.1 in its CIFAR settings, 0.025 by default).

    Raises:
        NonegError: no such convention, or a scale where the convention has none.
    """
    if convention in ("authors", "paper", "lightly"):
        if scale != 1:
            raise NonegError(f"Barlow Twins has no scale in the convention '{convention}'")
        return BarlowTwinsWeights(1.0, redundancy)
    if convention == "solo_learn":
        return BarlowTwinsWeights(scale, scale * redundancy)
    raise _unknown("Barlow Twins", convention, "authors, paper, lightly, solo_learn")


def byol_weight(convention: str) -> float:
    """What noneg's BYOL loss is to be multiplied by for another convention's gradient.

    With an optimizer whose step is in proportion to the gradient (SGD), that is a factor on the
    learning rate; with AdamW it changes nothing, and with LARS only biases and norms.

    Args:
        convention: "sum" of both directions' 2 - 2 cos (the paper, its authors' code, solo-learn;
            noneg's own); "mean" of the two; "negative_cosine", the mean of both directions' -cos
            (SimSiam's loss, and lightly's examples of BYOL).

    Raises:
        NonegError: no such convention.
    """
    weights = {"sum": 1.0, "mean": 0.5, "negative_cosine": 0.25}
    if convention not in weights:
        raise _unknown("BYOL", convention, ", ".join(weights))
    return weights[convention]


def _unknown(loss: str, convention: str, known: str) -> NonegError:
    return NonegError(f"no convention '{convention}' of {loss}; there are: {known}")
