"""Are embeddings uniform on the sphere? (Expanding SPHERE-JEPA, arXiv 2606.17603)

The maximum mean discrepancy from the uniform distribution, with a kernel of the spherical harmonics
of degree 1 and 2 alone. By their addition theorem, with Z the embeddings, scaled to length 1, as
rows, n of them in d dimensions,

    mean_ij of degree 1 = d |mean z|^2
    mean_ij of degree 2 = d (d + 2) / 2 (|Z'Z / n|_F^2 - 1 / d)

so no pairs are needed: only the mean, and the energy of the smaller Gram matrix.
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from noneg.losses.gram import gram_energy
from noneg.losses.inputs import in_full_precision


@in_full_precision
def sphere_discrepancy(z: Float[Tensor, "views batch width"]) -> Float[Tensor, ""]:
    """How far each view's embeddings are from uniform on the sphere; the mean over views.

    Convention: the paper's band-limited kernel up to degree 2, pairs of an embedding with itself
    included, divided so that a complete collapse is 1. Higher degrees are not seen: any embeddings
    with mean 0 whose second moments are I / width have 0.

    Args:
        z: embeddings of at least one view and image, of any length, >= 2 dimensions; bfloat16 and
            float16 become float32.

    Returns:
        In [0, 1] up to rounding if no embedding is 0: 0 for an orthonormal basis with its
        negatives, 1 / batch on average for uniform embeddings, about 1 / r - 1 / width if they fill
        r directions.
    """
    batch, width = z.shape[1:]
    unit = normalize(z, dim=2)
    first = width * unit.mean(dim=1).square().sum(dim=1)
    second = width * (width + 2) / 2 * (gram_energy(unit) / batch**2 - 1 / width)
    return (first + second).mean() / (width + (width + 2) * (width - 1) / 2)
