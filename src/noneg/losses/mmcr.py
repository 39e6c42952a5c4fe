"""MMCR (Yerxa et al., arXiv 2303.03307): the nuclear norm of the images' centroids."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from noneg.losses.gram import smaller_gram
from noneg.losses.inputs import check_views, in_full_precision, to_float64


def nuclear_norm(z: Float[Tensor, "*batch n d"]) -> Float[Tensor, "*batch"]:
    """The sum of the singular values: roots of the eigenvalues of the smaller Gram matrix.

    In float64 if the device has it, because roots magnify the rounding of small eigenvalues. Those
    below 1e-13 of the largest (1e-6 without float64) count as 0, with the gradient 0.
    """
    exact = to_float64(z)
    values = torch.linalg.eigvalsh(smaller_gram(exact))
    smallest = 1e-13 if values.dtype == torch.float64 else 1e-6
    there = values > smallest * values[..., -1:]
    roots: Tensor = (torch.where(there, values, 1).sqrt() * there).sum(dim=-1)
    return roots.to(z.dtype)


@in_full_precision
def mmcr(
    z: Float[Tensor, "views batch width"], *, local: float = 0.0
) -> dict[str, Float[Tensor, ""]]:
    """Minus the nuclear norm of the centroids; with `local`, plus that of each image's views.

    Views are scaled to length 1 and averaged over each image, and the centroids C are not scaled
    again. A long centroid means that views agree, and a large norm of the
    matrix that the centroids fill all directions.

    Convention: the authors' code: a sum of singular values, which grows with the batch.

    Args:
        z: projections of at least 2 views and 2 images; bfloat16 and float16 become float32.
        local: weight lambda of the mean over images of the nuclear norm of its views; 0 in the
            authors' recipes.

    Returns:
        `centroids`, in [-sqrt(batch min(batch, width)), 0], the least for orthogonal centroids of
        length 1 (or, if the batch is larger than the width, whose coordinates are); -sqrt(batch) if
        all embeddings are equal. `local` >= 0 if it has a weight.

    Raises:
        NonegError: fewer than 2 views or images.
    """
    check_views("mmcr", z)
    unit = normalize(z, dim=2)
    terms = {"centroids": -nuclear_norm(unit.mean(dim=0))}
    if local:
        terms["local"] = local * nuclear_norm(unit.transpose(0, 1)).mean()
    return terms
