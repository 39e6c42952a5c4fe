"""SSL-HSIC (Li, Pogodin, Sutherland and Gretton, arXiv 2106.08320): dependence on the image."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from noneg.losses.gram import covariance_energy
from noneg.losses.inputs import check_views, in_full_precision


@in_full_precision
def hsic(
    z: Float[Tensor, "views batch width"],
    *,
    gamma: float = 3.0,
    kernel: Literal["inverse_multiquadric", "linear"] = "inverse_multiquadric",
    scale: float = 1.0,
) -> dict[str, Float[Tensor, ""]]:
    """The terms of -HSIC(Z, Y) + gamma sqrt(HSIC(Z, Z)); the loss is their sum.

    Y is the identity of the image. With k the kernel and N = views * batch embeddings,

        HSIC(Z, Y) = mean of k over pairs of different views of one image
                     - mean of k over all N^2 pairs
        HSIC(Z, Z) = |HKH|_F^2 / N^2, K the matrix of all k, H = I - 1/N

    "inverse_multiquadric" is the paper's kernel, scale / sqrt(scale^2 + |x - y|^2). "linear" is
    x . y; HSIC(Z, Z) is then the sum of squares of the covariance matrix, from the smaller of its
    two forms (`gram.py`). Memory is O(N^2) for the first, O(min(N, width)^2) for the second.

    Convention: the authors' code, with divisors N (the paper divides by N - 1 in places) and
    a kernel of the labels whose two values differ by 1. Two things differ from it. Kernels are
    exact, where it uses 512 random features. And a view is never paired with itself, which for the
    inverse multiquadric removes the constant 1 / (views - 1). The authors normalize the embeddings
    to unit length and adapt `scale` during training; here the caller decides both.

    Args:
        z: projections of at least 2 views and 2 images; bfloat16 and float16 become float32.
        gamma: weight of the second term; 3 in the paper.
        kernel: the kernel k.
        scale: c of the inverse multiquadric, > 0.

    Returns:
        `dependence`, -HSIC(Z, Y), and `regularizer`, gamma sqrt(HSIC(Z, Z)) >= 0. At 0, the
        regularizer's gradient is set to 0.

    Raises:
        NonegError: fewer than 2 views or images.
    """
    check_views("hsic", z)
    if kernel == "linear":
        on_itself, on_image = _linear(z)
    else:
        on_itself, on_image = _inverse_multiquadric(z, scale)
    # At 0 all embeddings are equal and the root has an infinite slope, but no preferred direction.
    root = torch.where(on_itself > 0, on_itself, 1).sqrt() * (on_itself > 0)
    return {"dependence": -on_image, "regularizer": gamma * root}


def _linear(z: Float[Tensor, "views batch width"]) -> tuple[Tensor, Tensor]:
    views, batch, _ = z.shape
    everything = views * batch
    squares, energy = covariance_energy(z.flatten(0, 1)[None])
    centered = z - z.mean(dim=(0, 1))
    # The sum over pairs of different views, without forming them; the mean kernel of centered rows
    # is 0.
    pairs = centered.sum(dim=0).square().sum() - centered.square().sum()
    on_itself = (energy.sum() + squares.square().sum()) / everything**2
    return on_itself, pairs / (everything * (views - 1))


def _inverse_multiquadric(
    z: Float[Tensor, "views batch width"], scale: float
) -> tuple[Tensor, Tensor]:
    views, batch, width = z.shape
    everything = views * batch
    # Distances do not depend on the mean, but their rounding errors do.
    rows = (z - z.mean(dim=(0, 1))).reshape(everything, width)
    squares = rows.square().sum(dim=1)
    distance = (squares[:, None] + squares - 2 * rows @ rows.T).clamp(min=0)
    # Centering removes the kernel's 1: subtracted before, it costs no digits near a collapse.
    root = (distance + scale**2).sqrt()
    matrix = -distance / (root * (root + scale))
    centered = matrix - matrix.mean(dim=0) - matrix.mean(dim=1, keepdim=True) + matrix.mean()
    of_images = matrix.view(views, batch, views, batch).diagonal(dim1=1, dim2=3).sum(dim=2)
    pairs = of_images.sum() - of_images.diagonal().sum()
    on_image = pairs / (everything * (views - 1)) - matrix.mean()
    return centered.square().sum() / everything**2, on_image
