"""TiCo (Zhu et al., arXiv 2206.10698): covariance contrast against a running second moment."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from noneg.losses.agreement import mean_product
from noneg.losses.inputs import check_views, in_full_precision


@in_full_precision
def second_moment(z: Float[Tensor, "views batch width"]) -> Float[Tensor, "width width"]:
    """Mean of x x' over all embeddings of all views, scaled to length 1: not centered, trace 1."""
    rows = normalize(z, dim=2).flatten(0, 1)
    return rows.T @ rows / len(rows)


@in_full_precision
def tico(
    z: Float[Tensor, "views batch width"],
    t: Float[Tensor, "targets batch width"],
    covariance: Float[Tensor, "width width"],
    *,
    rho: float = 8.0,
) -> dict[str, Float[Tensor, ""]]:
    """1 - mean z_v . t_w over pairs of different views v, w, and rho mean z' C z.

    Convention: lightly's port (the authors published no code). Embeddings have length 1. C is a
    moving average of `second_moment` that already contains this batch, and has no gradient; another
    port also differentiates this batch's share of C. The paper has one direction, here it is the
    mean over all ordered pairs, and over the views in the second term.

    Args:
        z: projections of at least 2 views and 2 images; bfloat16 and float16 become float32.
        t: targets of these views, or of the first ones; no gradient flows into them.
        covariance: C.
        rho: weight of the second term.

    Returns:
        `agreement` in [0, 2] and `covariance` in [0, rho]: rho if all embeddings are one vector and
        C is its square, rho / width if they fill all directions alike.

    Raises:
        NonegError: fewer than 2 views or images.
    """
    check_views("tico", z)
    unit = normalize(z, dim=2)
    contrast = ((unit @ covariance.detach()) * unit).sum(dim=2).mean()
    agreement = 1 - mean_product(unit, normalize(t.detach(), dim=2))
    return {"agreement": agreement, "covariance": rho * contrast}
