"""How far apart the embeddings of different images are, and how close those of one image."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from noneg.diagnostics.distances import squared_distances
from noneg.diagnostics.resolution import directions, exact, resolution_of


def normalized_std(z: Float[Tensor, "images width"]) -> float:
    """The spread of the embeddings' directions: 1 healthy, 0 collapsed.

        sqrt(D) * mean_j std_i(z_ij / |z_i|)

    SimSiam's meter (Chen and He 2021, arXiv 2011.10566, section 4.1), times sqrt(D) so that
    values compare between widths. The standard deviation is over the images, with divisor N.

    Near 1: the directions are spread evenly around the origin. Below about 0.1: collapsing. 0: all
    embeddings have the same direction. In between: the embeddings share a mean direction (as after
    a ReLU), or the coordinates differ in spread.

    It cannot see dimensional collapse: one vector with random signs (a line, rank 1) scores 1. It
    does not say whether the directions mean anything: an untrained network may score high.

    Args:
        z: embeddings [N, D] of any float type and scale.

    Returns:
        A number in [0, 1]; 0 for a single image. Zero vectors count as points at the origin. NaN if
        an embedding is not finite.
    """
    spread = directions(z).std(dim=0, correction=0)
    return float(spread.mean() * z.shape[1] ** 0.5)


def mean_norm(z: Float[Tensor, "images width"]) -> float:
    """The mean length of the embeddings: mean_i |z_i|.

    At least 0. No length is good in itself. A drift to 0 or to infinity is bad: losses of
    normalized vectors do not see the length, but their gradient is proportional to its inverse. It
    does not see directions.
    """
    return float(torch.linalg.vector_norm(exact(z), dim=1).mean())


def mean_cosine(z: Float[Tensor, "images width"]) -> float:
    """The mean cosine between the embeddings of different images.

        (|sum_i u_i|^2 - N) / (N (N - 1)),   u_i = z_i / |z_i|

    In [-1 / (N - 1), 1]. Good: near 0. Bad: near 1, all embeddings have the same direction. After a
    ReLU it is never below 0. It cannot see dimensional collapse: one vector with random signs gives
    0.

    Zero vectors have no direction and are left out; NaN if fewer than two are left.
    """
    u = directions(z)
    images = float(u.square().sum())
    if images < 1.5:
        return math.nan
    mean = (float(u.sum(dim=0).square().sum()) - images) / (images * (images - 1))
    return min(mean, 1.0)


def alignment(views: Float[Tensor, "views images width"]) -> float:
    """How far apart the views of one image are: the mean squared distance of their directions.

        mean over images and pairs of views of |u - u'|^2,   u = z / |z|

    Wang and Isola 2020, arXiv 2005.10242, section 4.1.2, with alpha = 2, of normalized embeddings.

    In [0, 4]. 0: the embedding is invariant to the augmentation. 2: the views of an image are no
    closer than two random vectors. Lower is better at equal uniformity. It cannot see collapse: it
    is best if all embeddings are equal.

    Zero vectors count as points at the origin.

    Args:
        views: embeddings [V, N, D], grouped by view.

    Returns:
        The mean; NaN for a single view.
    """
    count = views.shape[0]
    if count < 2:
        return math.nan
    u = directions(views)
    # The mean over the pairs is twice the variance with divisor V - 1.
    scatter = (u - u.mean(dim=0)).square().sum()
    return float(scatter) * 2 / ((count - 1) * views.shape[1])


def uniformity(z: Float[Tensor, "images width"], t: float = 2.0) -> float:
    """How evenly the embeddings are spread over the sphere.

        log mean_{i != j} exp(-t |u_i - u_j|^2),   u_i = z_i / |z_i|

    Wang and Isola 2020, arXiv 2005.10242, section 4.1.2, t = 2. Over all pairs, exactly.

    In [-4 t, 0]. Good: near the value of points sampled uniformly on the sphere, which falls to
    -2 t = -4 as the width grows (-3.9 at 128 dimensions). Bad: 0, all embeddings are equal. It is
    nearly blind to dimensional collapse: a few tens of directions are enough for values near -4.

    Zero vectors count as points at the origin.

    Returns:
        The logarithm; NaN for a single image.
    """
    images = z.shape[0]
    if images < 2:
        return math.nan
    u = directions(z)
    total = torch.full((), -torch.inf, dtype=u.dtype, device=u.device)
    for rows, squared in squared_distances(u, u):
        squared.diagonal(offset=rows).fill_(torch.inf)
        total = torch.logaddexp(total, (-t * squared).flatten().logsumexp(0))
    return float(total) - math.log(images * (images - 1))


def self_clustering(z: Float[Tensor, "images width"]) -> float:
    """How much the embeddings cluster along few lines: 0 like uniform points, 1 collapsed.

        (Q - E) / (N^2 - E),   Q = sum_ij (u_i . u_j)^2,   E = N + N (N - 1) / D

    Tsitsulin et al. 2023, arXiv 2305.16562, definition 3.5: E is the expectation of Q for points
    sampled uniformly on the sphere, N^2 its value for a single point. The paper writes the norm of
    u u^T without the square, but E and N^2 are those of the square, as in the authors' code.

    Good: near 0, or a little below if the embeddings are spread more evenly than by chance. Bad:
    near 1. k equal groups on orthogonal lines give about 1 / k. Because of the squares, a vector
    and its opposite count as equal, and two opposite groups as one. It cannot tell signal from
    noise.

    Zero vectors have no direction and are left out.

    Returns:
        A number of at most 1; NaN if fewer than two images are left, or if D = 1.
    """
    u = directions(z)
    images = float(u.square().sum())
    width = z.shape[1]
    if images < 1.5 or width == 1:
        return math.nan
    gram = u @ u.T if z.shape[0] < width else u.T @ u
    expected = images + images * (images - 1) / width
    return (float(gram.square().sum()) - expected) / (images**2 - expected)


def view_retrieval(
    views: Float[Tensor, "views images width"], *, resolution: float | None = None
) -> float:
    """The share of images whose nearest neighbor in another view is the same image, by cosine.

    Each embedding of the first view searches all N embeddings of another view. The mean over the
    images and over the other views.

    In [0, 1]; chance is 1 / N. Good: near 1, the embedding tells images apart despite the
    augmentation. Bad: near chance. Ties share the hit, as if one of them were sampled, so equal
    embeddings score 1 / N. It gets harder as N grows. Color or position may be enough for a high
    score: it does not say whether what tells the images apart is useful.

    Args:
        views: embeddings [V, N, D], grouped by view.
        resolution: as in `covariance_eigenvalues`; smaller distances between directions are ties.

    Returns:
        The share; NaN for a single view.
    """
    count, images, _ = views.shape
    if count < 2:
        return math.nan
    resolution = resolution_of(views) if resolution is None else resolution
    # 1e-8 is float64's own resolution: a distance is the root of a difference.
    tie = max(2 * resolution, 1e-8)
    u = directions(views)
    if not bool(torch.isfinite(u).all()):
        return math.nan
    # Unit vectors rank by distance as by cosine, and subtracting a common mean leaves distances
    # unchanged, with more digits for the differences.
    u = u - u.mean(dim=(0, 1))
    hits = 0.0
    for other in u[1:]:
        for rows, squared in squared_distances(u[0], other):
            distance = squared.sqrt()
            own = distance.diagonal(offset=rows)
            found = own <= distance.amin(dim=1) + tie
            tied = (distance <= own[:, None] + tie).sum(dim=1)
            hits += float((found / tied).sum())
    return hits / (images * (count - 1))
