"""How many directions the embeddings use: functions of the spectrum of their covariance.

    C = 1/N sum_i (z_i - mean)(z_i - mean)^T,   l_1 >= l_2 >= ... its eigenvalues

`covariance_eigenvalues` does the decomposition. Each meter is a function of embeddings, and a
function `..._of` of the eigenvalues, which meters share. RankMe and the stable rank are defined on
embeddings that are not centered, so they use the eigenvalues of the second moment.

All meters here see only second moments. None can tell signal from noise: independent random vectors
score best. None sees the scale. Compare one method at one width and one number of images.

If all embeddings are equal, there is no spectrum. The ranks and the shares are then 1, as for
embeddings on a line. Embeddings that are not finite give NaN.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from noneg.diagnostics.resolution import exact, resolution_of

Spectrum = Float[Tensor, "directions"]


def covariance_eigenvalues(
    z: Float[Tensor, "images width"], *, centered: bool = True, resolution: float | None = None
) -> Spectrum:
    """The eigenvalues of the covariance (divisor N), largest first.

    They come from the smaller of the two Gram matrices in float64, N x N or D x D: several times
    faster than a decomposition of z if one side is much longer. Squaring loses singular values
    below 1e-7 of the largest, which add less than 2e-6 each to an entropy.

    Eigenvalues that may come from rounding are set to zero: otherwise, equal rows that differ in
    their last bit would have full rank.

    Args:
        z: embeddings [N, D] of any float type.
        centered: subtract the mean over the images first. Otherwise the eigenvalues of the second
            moment 1/N sum_i z_i z_i^T.
        resolution: relative precision to which the embeddings are known, if that is coarser than
            their type, as for bfloat16 numbers in a float32 tensor. By default that of the type.

    Returns:
        min(N, D) numbers in float64, none negative; all NaN if an embedding is not finite.
    """
    gram, rounding = _smaller_gram(z, centered, resolution)
    if not bool(torch.isfinite(gram).all()):
        return torch.full_like(gram[0], torch.nan)
    singular = torch.linalg.eigvalsh(gram).flip(0).clamp(min=0).sqrt()
    # The Gram matrix's own rounding, for float64 embeddings.
    rounding = torch.maximum(rounding, 1e-7 * singular[0])
    eigenvalues: Tensor = singular.where(singular > rounding, 0).square() / len(z)
    return eigenvalues


def effective_rank(z: Float[Tensor, "images width"], *, centered: bool = True) -> float:
    """How many directions the embeddings use, as a real number.

        exp(-sum_k p_k log p_k),   p_k = s_k / sum_l s_l,   s the singular values of z

    Roy and Vetterli 2007, "The effective rank", definition 1; 0 log 0 is 0.

    Centered by default: a mean that all images share does not tell them apart, but would hide
    everything else in an uncentered spectrum. `centered=False` is for comparison with RankMe.

    Near min(N - 1, D): no direction is preferred. 1: all embeddings are on a line, or equal. A
    fall to a few per cent of D in training is dimensional collapse. Compare only runs of one
    method at one width and one number of images; it grows with N until N is several times D.

    It cannot see the scale (embeddings times 1e-3 score the same: see `normalized_std`) and cannot
    tell signal from noise: random vectors have the highest rank of all.

    Args:
        z: embeddings [N, D] of any float type.
        centered: subtract the mean over the images first.

    Returns:
        A number in [1, min(N, D)]; 1 if all embeddings are equal, or zero; NaN if an embedding is
        not finite.
    """
    return effective_rank_of(covariance_eigenvalues(z, centered=centered))


def effective_rank_of(eigenvalues: Spectrum) -> float:
    """`effective_rank` of a spectrum."""
    singular = eigenvalues.sqrt()
    if singular.sum() == 0:
        return 1.0
    return float(torch.special.entr(singular / singular.sum()).sum().exp())


def rankme(z: Float[Tensor, "images width"]) -> float:
    """RankMe: the effective rank of embeddings that are not centered.

        exp(-sum_k p_k log p_k),   p_k = s_k / sum_l s_l + 1e-7,   s the singular values of z

    Garrido et al. 2023, arXiv 2210.02885, equation 1. The paper uses 25,600 images, and only
    compares runs of one method. In [1, min(N, D)], or above by less than 2e-6 min(N, D).

    Good: high among comparable runs. Bad: near 1, the embeddings are on a line through the origin.
    A mean that all images share, as after a ReLU, lowers it: it is then mostly a measure of the
    mean. See `effective_rank` for what else it cannot see.
    """
    return rankme_of(covariance_eigenvalues(z, centered=False))


def rankme_of(second_moment_eigenvalues: Spectrum) -> float:
    """`rankme` of a spectrum that is not centered."""
    singular = second_moment_eigenvalues.sqrt()
    if singular.sum() == 0:
        return 1.0
    return float(torch.special.entr(singular / singular.sum() + 1e-7).sum().exp())


def participation_ratio(
    z: Float[Tensor, "images width"], *, resolution: float | None = None
) -> float:
    """How many directions carry the variance.

        (sum_k l_k)^2 / sum_k l_k^2  =  (tr C)^2 / |C|_F^2

    Gao et al. 2017, "A theory of multineuronal dimensionality". In [1, min(N - 1, D)]. Good: a
    large part of D. Bad: a few. k equal eigenvalues give k. Lower than the effective rank, because
    squares count the large eigenvalues more: it cannot see a tail of many small directions.

    It needs no decomposition, only the trace and the norm of the smaller Gram matrix.
    """
    gram, rounding = _smaller_gram(z, True, resolution)
    energy = gram.trace()
    # The singular values are not above the rounding, on average.
    if energy <= len(gram) * rounding.square():
        return 1.0
    return float(energy.square() / gram.square().sum())


def participation_ratio_of(eigenvalues: Spectrum) -> float:
    """`participation_ratio` of a spectrum."""
    share = _shares(eigenvalues)
    return 1 / float(share.square().sum())


def stable_rank(z: Float[Tensor, "images width"]) -> float:
    """The total energy over that of the strongest direction, without centering.

        |Z|_F^2 / |Z|_2^2  =  sum_k l_k / l_1,   l of the second moment, not centered

    Rudelson and Vershynin 2007; as a meter of embeddings, Tsitsulin et al. 2023, arXiv 2305.16562.
    In [1, min(N, D)]. Good: large. Bad: near 1, one direction, often the shared mean, has nearly
    all the energy. It sees only l_1, not the distribution of the rest. Centered, it is `nesum`.
    """
    return stable_rank_of(covariance_eigenvalues(z, centered=False))


def stable_rank_of(second_moment_eigenvalues: Spectrum) -> float:
    """`stable_rank` of a spectrum that is not centered."""
    return 1 / float(_shares(second_moment_eigenvalues)[0])


def top_share(z: Float[Tensor, "images width"]) -> float:
    """The share of the variance along the strongest direction: l_1 / sum_k l_k.

    The first explained-variance ratio of a principal component analysis. In
    [1 / min(N - 1, D), 1]. Good: small. Bad: near 1, the embeddings are on a line. It sees only one
    direction: collapse to a plane can give 1/2.
    """
    return top_share_of(covariance_eigenvalues(z))


def top_share_of(eigenvalues: Spectrum) -> float:
    """`top_share` of a spectrum."""
    return float(_shares(eigenvalues)[0])


def nesum(z: Float[Tensor, "images width"]) -> float:
    """The sum of the eigenvalues over the largest: sum_k l_k / l_1.

    NESum, He and Ozay 2022, "Exploring the gap between collapsed and whitened features in
    self-supervised learning", definition 4.1. In [1, min(N - 1, D)]: whitened embeddings give the
    upper end, collapse to a line gives 1. It is 1 / `top_share`, and sees as little.
    """
    return nesum_of(covariance_eigenvalues(z))


def nesum_of(eigenvalues: Spectrum) -> float:
    """`nesum` of a spectrum."""
    return 1 / float(_shares(eigenvalues)[0])


def alpha_req(z: Float[Tensor, "images width"], *, first: int = 11, last: int = 100) -> float:
    """How steeply the spectrum falls: alpha where l_k is about k^-alpha.

    alpha-ReQ, Agrawal et al. 2022. The slope of -log l_k against log k by least squares over the
    indices k = `first` .. `last`, each weighted by 1 / k, so that every octave of indices has about
    the same weight (the fit of Stringer et al. 2019, used by the authors of alpha-ReQ).

    Near 1 is best in the paper. Well above: the variance is in a few directions. 0: no direction is
    preferred, as in white noise. No upper bound; never negative, because eigenvalues are sorted.

    Eigenvalues of zero have no logarithm: the range ends at the last one above zero. A spectrum of
    low rank is therefore fitted on its nonzero part, and can look healthy: look at a rank too. It
    does not see the first ten directions, nor how well a power law fits. With too few images, the
    finite sample makes the spectrum fall faster at the end of the range, and alpha larger.

    Returns:
        alpha; NaN if fewer than ten eigenvalues in the range are above zero.
    """
    return alpha_req_of(covariance_eigenvalues(z), first=first, last=last)


def alpha_req_of(eigenvalues: Spectrum, *, first: int = 11, last: int = 100) -> float:
    """`alpha_req` of a spectrum."""
    last = min(last, int((eigenvalues > 0).sum()))
    if last - first + 1 < 10:
        return math.nan
    index = torch.arange(first, last + 1, dtype=torch.float64, device=eigenvalues.device)
    weight = (1 / index) / (1 / index).sum()
    x, y = index.log(), eigenvalues[first - 1 : last].log()
    x = x - (weight * x).sum()
    return -float((weight * x * y).sum() / (weight * x * x).sum())


def explained_auc(z: Float[Tensor, "images width"]) -> float:
    """The area under the curve of cumulative explained variance.

        1/d sum_k (sum_{i<=k} s_i / sum_i s_i),   d = min(N, D),
        s the singular values of the centered z

    Li, Efros and Pathak 2022, "Understanding collapse in non-contrastive siamese representation
    learning", arXiv 2209.15007, equation 2. The paper speaks of variance but sums singular values,
    and so does this function.

    In [1/2 + 1/(2 d), 1]. Good: near the lower end, all directions are equal. Bad: near 1, the
    first few have nearly everything. With N < D, a collapse to rank r gives about 1 - r / 2 N,
    whatever D.
    """
    return explained_auc_of(covariance_eigenvalues(z))


def explained_auc_of(eigenvalues: Spectrum) -> float:
    """`explained_auc` of a spectrum."""
    return float(_shares(eigenvalues.sqrt()).cumsum(0).mean())


def _smaller_gram(
    z: Float[Tensor, "images width"], centered: bool, resolution: float | None
) -> tuple[Float[Tensor, "side side"], Float[Tensor, ""]]:
    """The smaller of z z^T and z^T z, and the largest singular value of z that is only rounding."""
    images, width = z.shape
    resolution = resolution_of(z) if resolution is None else resolution
    z = exact(z)
    # The largest singular value of a matrix of independent errors, a few roundings to z's type.
    rounding = 2 * resolution * z.norm() * (images**-0.5 + width**-0.5)
    if centered:
        z = z - z.mean(dim=0)
    return (z @ z.T if images < width else z.T @ z), rounding


def _shares(spectrum: Spectrum) -> Spectrum:
    total = spectrum.sum()
    if total == 0:
        # As if all embeddings were on a line.
        line = torch.zeros_like(spectrum)
        line[0] = 1
        return line
    return spectrum / total
