"""How far apart the embeddings of different images are, and how near those of one image."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from noneg.diagnostics.distances import squared_distances
from noneg.diagnostics.resolution import directions, exact, resolution_of


def normalized_std(z: Float[Tensor, "images width"]) -> float:
    """How far the directions of the embeddings spread: 1 healthy, 0 collapsed.

        sqrt(D) * mean_j std_i(z_ij / |z_i|)

    SimSiam's meter (Chen and He 2021, arXiv 2011.10566, section 4.1), times sqrt(D) so that it
    reads alike at every width. The standard deviation is over the images, with divisor N.

    Near 1: the directions fill the sphere evenly about the origin. Below about 0.1: collapsing.
    0: all embeddings point one way. In between, the embeddings share a mean direction (those after
    a ReLU do) or the coordinates differ in spread.

    It cannot see dimensional collapse: random signs of one vector (a line, rank 1) score 1. It
    says nothing of whether the directions mean anything: an untrained network may score high.

    Args:
        z: embeddings [N, D] of any float type and scale.

    Returns:
        A number in [0, 1]. 0 for a single image; zero vectors count as points at the origin; NaN
        where an embedding is not finite.
    """
    spread = directions(z).std(dim=0, correction=0)
    return float(spread.mean() * z.shape[1] ** 0.5)


def mean_norm(z: Float[Tensor, "images width"]) -> float:
    """The mean length of the embeddings: mean_i |z_i|.

    At least 0. No length is good in itself. Bad is a run to 0 or without end: losses of
    normalized vectors do not see the length, yet their gradient falls as one over it. It says
    nothing of directions.
    """
    return float(torch.linalg.vector_norm(exact(z), dim=1).mean())


def mean_cosine(z: Float[Tensor, "images width"]) -> float:
    """The mean cosine between the embeddings of different images.

        (|sum_i u_i|^2 - N) / (N (N - 1)),   u_i = z_i / |z_i|

    In [-1 / (N - 1), 1]. Good: near 0. Bad: near 1, all embeddings point one way; those after a
    ReLU are never below 0. It cannot see dimensional collapse: random signs of one vector give 0.

    Zero vectors have no direction and are left out; NaN where fewer than two are left.
    """
    u = directions(z)
    images = float(u.square().sum())
    if images < 1.5:
        return math.nan
    mean = (float(u.sum(dim=0).square().sum()) - images) / (images * (images - 1))
    return min(mean, 1.0)


def alignment(views: Float[Tensor, "views images width"]) -> float:
    """How far apart the views of one image are: the mean squared distance of their directions.

        mean over images, and pairs of views, of |u - u'|^2,   u = z / |z|

    Wang and Isola 2020, arXiv 2005.10242, section 4.1.2, with alpha = 2, of normalized embeddings.

    In [0, 4]. 0: the embedding does not see the augmentation. 2: the views of an image are no
    nearer than two random ones. Lower is better at equal uniformity; by itself it is best when all
    embeddings are equal, so it cannot see collapse.

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
    """How evenly the embeddings fill the sphere.

        log mean_{i != j} exp(-t |u_i - u_j|^2),   u_i = z_i / |z_i|

    Wang and Isola 2020, arXiv 2005.10242, section 4.1.2, t = 2. Over all pairs, exactly.

    In [-4 t, 0]. Good: near the value of points drawn evenly on the sphere, which falls to
    -2 t = -4 as the width grows (-3.9 at 128 dimensions). Bad: 0, all embeddings are equal. It is
    nearly blind to dimensional collapse: a few tens of directions already come close to -4.

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
    """How much the embeddings gather about few lines: 0 as points drawn evenly, 1 collapsed.

        (Q - E) / (N^2 - E),   Q = sum_ij (u_i . u_j)^2,   E = N + N (N - 1) / D

    Tsitsulin et al. 2023, arXiv 2305.16562, definition 3.5: E is what points drawn evenly on the
    sphere are expected to have, N^2 what a single point has. The paper writes the norm of u u^T
    without the square, but E and N^2 are those of the square, as in the authors' code.

    Good: near 0; a little below where the embeddings are spread more evenly than by chance. Bad:
    near 1. k equal groups on orthogonal lines give about 1 / k. Squares make a vector and its
    opposite alike, so two opposite groups count as one. It cannot tell signal from noise.

    Zero vectors have no direction and are left out.

    Returns:
        The share; NaN where fewer than two images are left, or D = 1.
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
    """The share of images that find themselves in another view, by the nearest cosine.

    Each embedding of the first view asks for its nearest among all N of another view; it is right
    if that is the same image. The mean over the images and over the other views.

    In [0, 1]; chance is 1 / N. Good: near 1, the embedding tells images apart whatever the
    augmentation. Bad: near chance. Embeddings that tie share the hit, as by drawing one of them, so
    that equal embeddings read 1 / N. It gets harder as N grows, and it can be had from color or
    position alone: it does not say that what tells the images apart is worth anything.

    Args:
        views: embeddings [V, N, D], grouped by view.
        resolution: as in `covariance_eigenvalues`; distances of directions below it are ties.

    Returns:
        The share; NaN for a single view.
    """
    count, images, _ = views.shape
    if count < 2:
        return math.nan
    resolution = resolution_of(views) if resolution is None else resolution
    # float64's own: a distance is the root of a difference.
    tie = max(2 * resolution, 1e-8)
    u = directions(views)
    if not bool(torch.isfinite(u).all()):
        return math.nan
    # Unit vectors rank by distance as by cosine, and distances bear to be taken from a common
    # mean, which leaves more digits for the differences.
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
