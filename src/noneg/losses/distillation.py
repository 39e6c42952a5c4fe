"""How far embeddings are from those of a frozen teacher. The teacher's `t` gets no gradient."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize, smooth_l1_loss

from noneg.losses.inputs import in_full_precision


@in_full_precision
def distance_to_target(
    z: Float[Tensor, "views batch width"],
    t: Float[Tensor, "batch width"],
    kind: Literal["cosine", "smooth_l1"] = "cosine",
) -> Float[Tensor, ""]:
    """The distance of each view from its image's target, averaged over views and batch.

    Args:
        z: embeddings of the views.
        t: targets of the images.
        kind: "cosine" is 1 - cos(z, t), in [0, 2]: half of the squared distance of unit vectors.
            "smooth_l1" is the Huber loss (threshold 1, mean over the width) of unit vectors times
            the square root of the width, so that a coordinate is about 1; in [0, inf).
    """
    t = t.detach()
    if kind == "cosine":
        return 1 - cosine_similarity(z, t[None], dim=-1).mean()
    scale = z.shape[-1] ** 0.5
    unit = normalize(z, dim=-1) * scale
    return smooth_l1_loss(unit, (normalize(t, dim=-1) * scale)[None].expand_as(unit))


@in_full_precision
def relational_distance(
    z: Float[Tensor, "views batch width"], t: Float[Tensor, "batch other"]
) -> Float[Tensor, ""]:
    """Squared difference between the cosines of pairs of images, for student and teacher.

    Averaged over views and over pairs of different images. Only relations between images are
    compared, so the widths may differ. The similarity matrices are those of Tung and Mori 2019
    (arXiv 1907.09682, section 3), with cosines instead of rows scaled to length 1. Range [0, 4].

    Args:
        z: embeddings of the views, of at least two images.
        t: targets of the images.
    """
    student, teacher = normalize(z, dim=-1), normalize(t.detach(), dim=-1)
    difference = student @ student.mT - teacher @ teacher.T
    count = z.shape[1]
    different = 1 - torch.eye(count, device=z.device, dtype=z.dtype)
    return (difference.square() * different).sum() / (len(z) * count * (count - 1))
