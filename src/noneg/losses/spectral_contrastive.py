"""The spectral contrastive loss (HaoChen et al., arXiv 2106.04156), for comparison."""

from jaxtyping import Float
from torch import Tensor

from noneg.losses.gram import cross_energy
from noneg.losses.inputs import check_views, in_full_precision


@in_full_precision
def spectral_contrastive(z: Float[Tensor, "views batch width"]) -> dict[str, Float[Tensor, ""]]:
    """The terms of the spectral contrastive loss; the loss is their sum.

    -2 E[a_i . b_i] + E[(a_i . b_j)^2] over different images i, j (paper, eq. 6). The second is the
    off-diagonal energy of AB', which is that of Barlow Twins with images and coordinates exchanged.

    Convention: as above, the mean over n images and over their n (n - 1) pairs, and over pairs of
    views. Embeddings are not changed; the authors' code shortens those above a given length.

    Args:
        z: projections of at least 2 views and 2 images; bfloat16 and float16 become float32.

    Returns:
        `attraction` (of either sign) and `repulsion` (>= 0).

    Raises:
        NonegError: fewer than 2 views or images.
    """
    check_views("spectral_contrastive", z)
    batch = z.shape[1]
    agreement, energy = cross_energy(z.transpose(1, 2))
    return {
        "attraction": -2 * agreement.mean(),
        "repulsion": energy.mean() / (batch * (batch - 1)),
    }
