"""How far apart views of the same image are. Minimizing only these collapses the embeddings."""

from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import mse_loss, normalize

from noneg.losses.inputs import in_full_precision


@in_full_precision
def mean_squared_error(z: Float[Tensor, "views batch width"]) -> Float[Tensor, ""]:
    """Squared difference between two views, averaged over pairs of views, batch and width.

    Convention: VICReg's invariance term as its authors compute it (arXiv 2105.04906, eq. 5, has
    a sum over the width). Range [0, inf).
    """
    pairs = combinations(z.unbind(), 2)
    return torch.stack([mse_loss(a, b) for a, b in pairs]).mean()


@in_full_precision
def distance_to_mean(
    z: Float[Tensor, "views batch width"], *, large: int | None = None
) -> Float[Tensor, ""]:
    """Squared difference between a view and its image's mean, averaged over views, batch and width.

    Convention: LeJEPA's invariance term (arXiv 2511.08544), and FroSSL's and VISReg's. It is
    `mean_squared_error` times (views - 1) / (2 views): a quarter of it for two views. The gradient
    is that of an attached mean. Range [0, inf).

    Args:
        z: embeddings of the views.
        large: the mean is that of so many first views, the large crops; by default, of all.
    """
    mean = z[:large].mean(dim=0)
    # Differences from the mean of all views add up to 0, so no gradient reaches it.
    return (z - (mean.detach() if large in (None, len(z)) else mean)).square().mean()


@in_full_precision
def mean_product(
    a: Float[Tensor, "views batch width"], b: Float[Tensor, "targets batch width"]
) -> Float[Tensor, ""]:
    """a_v . b_w, averaged over the batch and over ordered pairs of different views v, w.

    There may be targets of the first views alone.
    """
    products = a.flatten(1) @ b.flatten(1).T / a.shape[1]
    different = 1 - torch.eye(len(a), len(b), device=a.device, dtype=a.dtype)
    return (products * different).sum() / different.sum()


@in_full_precision
def negative_cosine(
    p: Float[Tensor, "views batch width"], t: Float[Tensor, "targets batch width"]
) -> Float[Tensor, ""]:
    """-cos(p_v, t_w), averaged as by `mean_product`.

    Convention: SimSiam's loss (arXiv 2011.10566, eq. 2, where each direction has a factor of 1/2).
    BYOL's loss (arXiv 2006.07733, eq. 2, both directions added) is 4 (1 + negative_cosine).
    Gradients flow into both arguments: detach `t` for a stop-gradient. Range [-1, 1].
    """
    return -mean_product(normalize(p, dim=2), normalize(t, dim=2))
