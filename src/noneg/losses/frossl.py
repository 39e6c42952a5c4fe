"""FroSSL (Skean et al., arXiv 2310.02903): the entropy of the spectrum, by a Frobenius norm."""

import torch
from jaxtyping import Float
from torch import Tensor

from noneg.losses.agreement import distance_to_mean
from noneg.losses.gram import gram_energy, unit_columns
from noneg.losses.inputs import check_views, in_full_precision


@in_full_precision
def frossl(
    z: Float[Tensor, "views batch width"], *, invariance: float = 1.0
) -> dict[str, Float[Tensor, ""]]:
    """The terms of FroSSL; the loss is their sum.

    Each view's columns are scaled to length 1 over the batch. With K their Gram matrix, the entropy
    term is log(|K|_F^2 / tr(K)^2): minus the Renyi entropy of order 2 of K's eigenvalues. K is
    batch x batch or width x width, whichever is smaller; its trace is the number of columns that
    are not 0, and has no gradient.

    Convention: the authors' code. Columns are not centered. The terms of all views are added. The
    invariance of a view is its squared distance from the mean of the views, summed over the width
    and averaged over the batch, times the number of views; with two views, both together are
    (2 / n) sum_j (1 - cos_j), cos_j between column j of the views.

    Args:
        z: projections of at least 2 views and 2 images; bfloat16 and float16 become float32.
        invariance: weight of the invariance term; 1 in the paper.

    Returns:
        `invariance` >= 0, and for each view `entropy_1`, `entropy_2` ..., in
        [-log min(batch, width), 0]; 0 for collapsed embeddings.

    Raises:
        NonegError: fewer than 2 views or images.
    """
    check_views("frossl", z)
    views, _, width = z.shape
    columns = unit_columns(z)
    energies = gram_energy(columns)
    traces = columns.detach().ne(0).any(dim=1).sum(dim=1)
    # Embeddings that are exactly 0 have no spectrum; they count as collapsed.
    entropies = torch.where(traces > 0, energies / traces.clamp(min=1).square(), 1).log()
    terms = {"invariance": invariance * views**2 * width * distance_to_mean(columns)}
    return terms | {f"entropy_{number}": each for number, each in enumerate(entropies, start=1)}
