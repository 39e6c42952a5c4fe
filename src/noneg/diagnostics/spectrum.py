"""How many directions the embeddings use: functions of one spectrum, that of their covariance.

    C = 1/N sum_i (z_i - mean)(z_i - mean)^T,   l_1 >= l_2 >= ... its eigenvalues

`covariance_eigenvalues` decomposes once; every `..._of` takes what it gives, and the functions of
embeddings are those two in a row. RankMe and the stable rank are defined on embeddings that are not
centered, so they have a spectrum of their own.

All look at second moments alone. None can tell signal from noise: independent random vectors score
best of all. None sees the scale. Compare one method at one width and one number of images.

Where all embeddings are equal there is no spectrum; the ranks are then 1 and the shares 1, as for
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
    faster than a decomposition of z when one side is much the longer. Squaring loses singular
    values below 1e-7 of the largest, which add less than 2e-6 each to an entropy.

    What rounding alone makes is set to zero: with it, equal rows that differ in their last bit
    would have full rank.

    Args:
        z: embeddings [N, D] of any float type.
        centered: take the mean over the images away first. Otherwise the eigenvalues of the second
            moment 1/N sum_i z_i z_i^T.
        resolution: relative precision to which the embeddings are known, where that is coarser
            than their type: bfloat16 numbers in a float32 tensor. By default that of the type.

    Returns:
        min(N, D) numbers in float64, none negative; all NaN where an embedding is not finite.
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
    """How many directions the embeddings use, as a number that need not be whole.

        exp(-sum_k p_k log p_k),   p_k = s_k / sum_l s_l,   s the singular values of z

    Roy and Vetterli 2007, "The effective rank", definition 1; 0 log 0 is 0.

    Centered by default, because a mean that all images share tells none of them apart, yet would
    hide all else in an uncentered spectrum. `centered=False` is for comparing with RankMe.

    Near min(N - 1, D): no direction is preferred. 1: all embeddings on a line, or all equal. A
    fall to a few per cent of D in training is dimensional collapse. Compare runs of one
    method at one width and one number of images only; it grows with N until N is several times D.

    It cannot see the scale (1e-3 times the embeddings scores the same: look at `normalized_std`)
    and cannot tell signal from noise: random vectors have the highest rank of all.

    Args:
        z: embeddings [N, D] of any float type.
        centered: take the mean over the images away first.

    Returns:
        A number in [1, min(N, D)]; 1 where all embeddings are equal, or zero; NaN where an
        embedding is not finite.
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

    Garrido et al. 2023, arXiv 2210.02885, equation 1. The paper takes 25,600 images and compares
    runs of one method with it, no more. In [1, min(N, D)], or above by less than 2e-6 min(N, D).

    Good: high among its like. Bad: near 1, the embeddings lie on a line through the origin. A mean
    that all images share holds it down (those after a ReLU have one): it is then mostly a measure
    of the mean. See `effective_rank` for the rest of what it cannot see.
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

    It needs no decomposition: traces of the smaller Gram matrix will do.
    """
    gram, rounding = _smaller_gram(z, True, resolution)
    energy = gram.trace()
    # On average no singular value is above the rounding.
    if energy <= len(gram) * rounding.square():
        return 1.0
    return float(energy.square() / gram.square().sum())


def participation_ratio_of(eigenvalues: Spectrum) -> float:
    """`participation_ratio` of a spectrum."""
    share = _shares(eigenvalues)
    return 1 / float(share.square().sum())


def stable_rank(z: Float[Tensor, "images width"]) -> float:
    """The total energy over that of the strongest direction, origin included.

        |Z|_F^2 / |Z|_2^2  =  sum_k l_k / l_1,   l of the second moment, not centered

    Rudelson and Vershynin 2007; as a meter of embeddings, Tsitsulin et al. 2023, arXiv 2305.16562.
    In [1, min(N, D)]. Good: large. Bad: near 1; one direction, often the shared mean, holds nearly
    everything. It sees l_1 alone: how the rest is spread does not enter. Centered, it is `nesum`.
    """
    return stable_rank_of(covariance_eigenvalues(z, centered=False))


def stable_rank_of(second_moment_eigenvalues: Spectrum) -> float:
    """`stable_rank` of a spectrum that is not centered."""
    return 1 / float(_shares(second_moment_eigenvalues)[0])


def top_share(z: Float[Tensor, "images width"]) -> float:
    """The share of the variance along the strongest direction: l_1 / sum_k l_k.

    The first explained-variance ratio of a principal component analysis. In
    [1 / min(N - 1, D), 1]. Good: small. Bad: near 1, the embeddings lie on a line. It sees one
    direction only: collapse to a plane can read 1/2.
    """
    return top_share_of(covariance_eigenvalues(z))


def top_share_of(eigenvalues: Spectrum) -> float:
    """`top_share` of a spectrum."""
    return float(_shares(eigenvalues)[0])


def nesum(z: Float[Tensor, "images width"]) -> float:
    """The sum of the eigenvalues over the largest: sum_k l_k / l_1.

    NESum, He and Ozay 2022, "Exploring the gap between collapsed and whitened features in
    self-supervised learning", definition 4.1. In [1, min(N - 1, D)]: whitened embeddings give the
    upper end, collapse to a line 1. It is 1 / `top_share`, and as blind.
    """
    return nesum_of(covariance_eigenvalues(z))


def nesum_of(eigenvalues: Spectrum) -> float:
    """`nesum` of a spectrum."""
    return 1 / float(_shares(eigenvalues)[0])


def alpha_req(z: Float[Tensor, "images width"], *, first: int = 11, last: int = 100) -> float:
    """How steeply the spectrum falls: alpha where l_k is about k^-alpha.

    alpha-ReQ, Agrawal et al. 2022. The slope of -log l_k against log k by least squares over the
    indices k = `first` .. `last`, each weighted by 1 / k, so that every octave of indices counts
    about alike (the fit of Stringer et al. 2019, used by the authors of alpha-ReQ).

    Near 1 is best in the paper. Well above: the variance is in a few directions. 0: no direction is
    preferred, as in white noise. No bounds; negative never, as the eigenvalues are sorted.

    Eigenvalues of zero have no logarithm: the range ends at the last one above zero. A spectrum of
    low rank is so fitted on what is left of it and can look healthy; look at a rank as well. It
    does not see the first ten directions, nor how well a power law fits. With too few images the
    finite sample bends the end of the range down, and alpha up.

    Returns:
        alpha; NaN where fewer than ten eigenvalues above zero are in the range.
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
    learning", arXiv 2209.15007, equation 2. The paper speaks of variance and sums singular values;
    so does this.

    In [1/2 + 1/(2 d), 1]. Good: near the lower end, all directions alike. Bad: near 1, the first
    few hold everything. With N < D a collapse to rank r reads about 1 - r / 2 N, whatever D.
    """
    return explained_auc_of(covariance_eigenvalues(z))


def explained_auc_of(eigenvalues: Spectrum) -> float:
    """`explained_auc` of a spectrum."""
    return float(_shares(eigenvalues.sqrt()).cumsum(0).mean())


def _smaller_gram(
    z: Float[Tensor, "images width"], centered: bool, resolution: float | None
) -> tuple[Float[Tensor, "side side"], Float[Tensor, ""]]:
    """The smaller of z z^T and z^T z, and the singular value of z that rounding alone can make."""
    images, width = z.shape
    resolution = resolution_of(z) if resolution is None else resolution
    z = exact(z)
    # A few roundings to z's own type, as the largest singular value of a matrix of independent
    # errors.
    rounding = 2 * resolution * z.norm() * (images**-0.5 + width**-0.5)
    if centered:
        z = z - z.mean(dim=0)
    return (z @ z.T if images < width else z.T @ z), rounding


def _shares(spectrum: Spectrum) -> Spectrum:
    total = spectrum.sum()
    if total == 0:
        # As if all were on a line.
        line = torch.zeros_like(spectrum)
        line[0] = 1
        return line
    return spectrum / total
