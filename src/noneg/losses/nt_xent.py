"""NT-Xent, SimCLR's contrastive loss (Chen et al., arXiv 2002.05709), for comparison."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from noneg.losses.inputs import check_views, in_full_precision


@in_full_precision
def nt_xent(
    z: Float[Tensor, "views batch width"], *, temperature: float = 0.5
) -> dict[str, Float[Tensor, ""]]:
    """Cross-entropy of each view's positives against all other views of all images (paper, eq. 1).

    Convention: -log of the softmax of cos / temperature over all views but the view itself; the
    mean over all views and their positives. With two views of N images the softmax has 2N - 1
    entries, so identical embeddings give log(2N - 1). With V views, each view has V - 1 positives.

    Args:
        z: projections of at least 2 views and 2 images; bfloat16 and float16 become float32.
        temperature: tau of the paper, which has 0.5 on CIFAR-10 and 0.1 on ImageNet.

    Returns:
        `nt_xent`, >= 0.

    Raises:
        NonegError: fewer than 2 views or images.
    """
    check_views("nt_xent", z)
    views, batch = z.shape[:2]
    unit = normalize(z.flatten(0, 1), dim=1)
    similarity = unit @ unit.T / temperature
    itself = torch.eye(views * batch, dtype=torch.bool, device=z.device)
    log_share = similarity.masked_fill(itself, -torch.inf).log_softmax(dim=1)
    image = torch.arange(batch, device=z.device).repeat(views)
    positive = (image[:, None] == image) & ~itself
    return {"nt_xent": -log_share[positive].mean()}
