"""Two numbers that tell, without labels, whether embeddings have collapsed.

They see different failures: `normalized_std` sees that all images get one vector (full collapse),
`effective_rank` that the vectors spread in few directions (dimensional collapse). Look at both.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize


def normalized_std(z: Float[Tensor, "images width"]) -> Float[Tensor, ""]:
    """How far the directions of the embeddings spread: 1 healthy, 0 collapsed.

        sqrt(D) * mean_j std_i(z_ij / |z_i|)

    SimSiam's meter (Chen and He 2021, arXiv 2011.10566, section 4.1), times sqrt(D) so that it
    reads alike at every width. The standard deviation is over the images, with divisor N.

    Near 1: the directions fill the sphere evenly about the origin. Below about 0.1: collapsing.
    0: all embeddings point one way. In between, the embeddings share a mean direction (those after
    a ReLU do) or the coordinates differ in spread.

    It cannot see dimensional collapse: random signs of one vector (a line, rank 1) score 1. It
    says nothing of whether the directions mean anything: an untrained network may score high.

    Args:
        z: embeddings [N, D] of any float type and scale; computed in float32 or better.

    Returns:
        A scalar in [0, 1], without gradient. 0 for a single image; zero vectors count as points
        at the origin.
    """
    z = _at_least_float32(z)
    spread = normalize(z, dim=1).std(dim=0, correction=0)
    return spread.mean().mul(z.shape[1] ** 0.5)


def effective_rank(z: Float[Tensor, "images width"], *, centered: bool = True) -> Float[Tensor, ""]:
    """How many directions the embeddings use, as a number that need not be whole.

        exp(-sum_k p_k log p_k),   p_k = s_k / sum_l s_l,   s the singular values of z

    Roy and Vetterli 2007, "The effective rank". RankMe (Garrido et al. 2023, arXiv 2210.02885,
    equation 1) is the same of uncentred embeddings, with 1e-7 added to each p_k; here 0 log 0 is 0.

    Centred by default, because a mean that all images share tells none of them apart, yet would
    hide all else in an uncentred spectrum. `centered=False` is for comparing with RankMe's figures.

    Near min(N - 1, D): no direction is preferred. 1: all embeddings on a line, or all equal. A
    fall to a few per cent of D in training is dimensional collapse. Compare runs of one
    method at one width and one number of images only; it grows with N until N is several times D.

    It cannot see the scale (1e-3 times the embeddings scores the same: look at `normalized_std`)
    and cannot tell signal from noise: random vectors have the highest rank of all.

    The singular values come from the smaller of the two Gram matrices in float64, N x N or D x D:
    several times faster than a decomposition of z when one side is much the longer. Squaring loses
    singular values below 1e-7 of the largest, which add less than 2e-6 each to the entropy.

    Args:
        z: embeddings [N, D] of any float type.
        centered: take the mean over the images away first.

    Returns:
        A scalar in [1, min(N, D)], without gradient; 1 where all embeddings are equal, or zero; NaN
        where an embedding is not finite.
    """
    images, width = z.shape
    resolution = torch.finfo(z.dtype).eps
    # Apple's GPUs have no float64.
    exact = z.detach().to("cpu" if z.device.type == "mps" else z.device).double()
    # What a few roundings to z's own type make, as the largest singular value of a matrix of
    # independent errors. Without it, equal rows that differ in their last bit would have full rank.
    rounding = 2 * resolution * exact.norm() * (images**-0.5 + width**-0.5)
    if centered:
        exact = exact - exact.mean(dim=0)
    gram = exact @ exact.T if images < width else exact.T @ exact
    if not bool(torch.isfinite(gram).all()):
        return torch.full((), torch.nan, device=z.device)
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    # The Gram matrix's own rounding, for float64 embeddings.
    rounding = torch.maximum(rounding, 1e-7 * singular.max())
    singular = singular.where(singular > rounding, 0)
    total = singular.sum()
    if total == 0:
        return torch.ones((), device=z.device)
    share = singular / total
    rank: Tensor = torch.special.entr(share).sum().exp()
    return rank.float().to(z.device)


def _at_least_float32(z: Float[Tensor, "images width"]) -> Float[Tensor, "images width"]:
    return z.detach().to(torch.promote_types(z.dtype, torch.float32))
