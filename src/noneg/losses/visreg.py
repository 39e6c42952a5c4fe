"""VISReg (Wu et al., arXiv 2606.02572): scale, center and shape of the embeddings, one by one."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from noneg.losses.agreement import distance_to_mean
from noneg.losses.inputs import check_views, in_full_precision


@in_full_precision
def visreg(
    z: Float[Tensor, "views batch width"],
    *,
    invariance: float = 0.1,
    center: float = 0.9,
    scale: float = 0.9,
    shape: float = 0.9,
    slices: int = 4096,
    large: int | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """The weighted terms of VISReg; the loss is their sum (paper, algorithm 1).

    With m and s the mean and standard deviation (divisor batch) of a view's coordinates: `center`
    is the mean of m^2, `scale` that of (s - 1)^2. `shape` is the squared distance between the
    sorted projections of (z - m) / s onto a random unit direction and the quantiles of a Gaussian
    at i / (batch + 1), averaged over the batch and over directions. s has no gradient there.

    Convention: the authors' code: means everywhere (the paper writes sums), averaged over views.
    Directions are sampled from torch's generator, one set for all views.

    Args:
        z: projections of at least 2 views and 2 images; bfloat16 and float16 become float32.
        invariance: weight of the distance to the mean of the views, 1 - lambda in the paper.
        center: weight of the center, lambda in the paper, as for the next two.
        scale: weight of the scale.
        shape: weight of the shape.
        slices: number of directions.
        large: number of first views, the large crops, whose mean the views should agree with; by
            default, all.

    Returns:
        `invariance`, `center`, `scale`, `shape`, each >= 0. Zeros have a scale of 1, whose gradient
        is 0 only there; that of `shape` is large, in an arbitrary direction.

    Raises:
        NonegError: fewer than 2 views or images.
    """
    check_views("visreg", z)
    batch, width = z.shape[1:]
    mean = z.mean(dim=1, keepdim=True)
    centered = z - mean
    squares = centered.square().mean(dim=1, keepdim=True)
    # A root has an infinite slope at 0.
    deviation = torch.where(squares > 0, squares, 1).sqrt() * (squares > 0) + 1e-6
    directions = normalize(torch.randn(width, slices, dtype=z.dtype), dim=0).to(z.device)
    rank = torch.arange(1, batch + 1, dtype=z.dtype, device=z.device)[:, None]
    quantiles = torch.special.ndtri(rank / (batch + 1))
    # View by view: the sorted projections are the largest matrix here.
    shapes = [
        ((view @ directions).sort(dim=0).values - quantiles).square().mean()
        for view in centered / deviation.detach()
    ]
    return {
        "invariance": invariance * distance_to_mean(z, large=large),
        "center": center * mean.square().mean(),
        "scale": scale * (deviation - 1).square().mean(),
        "shape": shape * torch.stack(shapes).mean(),
    }
