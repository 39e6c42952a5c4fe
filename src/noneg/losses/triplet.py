"""The triplet loss (FaceNet: Schroff et al., arXiv 1503.03832), for comparison."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from noneg.losses.inputs import check_views, in_full_precision


@in_full_precision
def triplet(
    z: Float[Tensor, "views batch width"],
    *,
    margin: float = 0.2,
    negatives: Literal["semi_hard", "hardest"] | Int[Tensor, "batch"] = "semi_hard",
) -> dict[str, Float[Tensor, ""]]:
    """max(0, margin + d^2(anchor, positive) - d^2(anchor, negative)) (paper, eq. 3).

    Convention: embeddings are normalized to unit length, so d^2 = 2 - 2 cos is in [0, 4]. Every
    view of every image is an anchor, each other view of the image a positive, with one negative for
    each of these; the mean over all these triplets, including those beyond the margin (the paper
    has their sum). Identical embeddings give the margin.

    Args:
        z: projections of at least 2 views and 2 images; bfloat16 and float16 become float32.
        margin: by how much d^2 to the negative should exceed d^2 to the positive.
        negatives: chosen among all views of all other images. "semi_hard" takes the nearest that is
            further than the positive, or the furthest if there is none (paper, section 3.2).
            "hardest" takes the nearest (batch hard, Hermans et al., arXiv 1703.07737; there, with
            two views, the positive is the only one). A tensor gives, for each image, the position
            in the batch of its negative, of which the positive's view is taken. Equally near ones
            share the gradient.

    Returns:
        `triplet`, in [0, 4 + margin].

    Raises:
        NonegError: fewer than 2 views or images.
    """
    check_views("triplet", z)
    views, batch = z.shape[:2]
    unit = normalize(z, dim=2)
    distance = 2 - 2 * torch.einsum("aik,bjk->abij", unit, unit)
    # [anchor's view, positive's view, image], like the negatives.
    positive = distance.diagonal(dim1=2, dim2=3)
    image = torch.arange(batch, device=z.device)
    if isinstance(negatives, Tensor):
        negative = distance[:, :, image, negatives]
    else:
        same = torch.eye(batch, dtype=torch.bool, device=z.device)
        negative = distance.masked_fill(same, torch.inf).amin(dim=(1, 3))[:, None]
        if negatives == "semi_hard":
            negative = _nearest_beyond(positive, distance, same)
    different = ~torch.eye(views, dtype=torch.bool, device=z.device)
    return {"triplet": torch.relu(margin + positive - negative)[different].mean()}


def _nearest_beyond(
    positive: Float[Tensor, "anchor positive batch"],
    distance: Float[Tensor, "anchor other batch batch"],
    same: Bool[Tensor, "batch batch"],
) -> Float[Tensor, "anchor positive batch"]:
    furthest = distance.masked_fill(same, -torch.inf).amax(dim=(1, 3))
    chosen = []
    for limit in positive.unbind(dim=1):
        nearer = distance <= limit[:, None, :, None]
        nearest = distance.masked_fill(same | nearer, torch.inf).amin(dim=(1, 3))
        chosen.append(torch.where(nearest.isinf(), furthest, nearest))
    return torch.stack(chosen, dim=1)
