"""Groups of similar images: k-means with a chosen or given number, or HDBSCAN."""

from typing import Literal

import numpy as np
from jaxtyping import Float32, Int64

from noneg.collection.neighbors import unit
from noneg.errors import NonegError

Algorithm = Literal["kmeans", "hdbscan"]

CANDIDATES = (2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50)
"""Numbers of clusters that are compared if none is given."""

# Directions of largest variance. Distances in more dimensions are all alike.
_COMPONENTS = 32
# Images on which numbers of clusters are compared; that grows with the square of the images.
_COMPARED = 2_000
_LEAST_IN_A_CLUSTER = 5


def find_clusters(
    embeddings: Float32[np.ndarray, "images width"],
    *,
    count: int | None = None,
    algorithm: Algorithm = "kmeans",
    seed: int = 0,
) -> Int64[np.ndarray, " images"]:
    """The cluster of each image, from 0, the largest first; -1 for images in none (HDBSCAN).

    The vectors are the coordinates along the directions of largest variance, at length 1; whitened,
    they gave worse clusters (see the log of 2026-11-28). Without a number, k-means takes the one
    with the best mean silhouette (Rousseeuw 1987) on a sample.

    Args:
        embeddings: h [N, D] of at least three images.
        count: the number of clusters, for k-means; default: the best of `CANDIDATES`.
        algorithm: "kmeans", or "hdbscan", which finds the number and leaves odd images out.
        seed: of k-means, and of the sample.

    Raises:
        NonegError: there are too few images, or a number was given to HDBSCAN.
    """
    images = len(embeddings)
    if images < 3:
        raise NonegError(f"{images} images have no clusters: give at least three")
    if count is not None and algorithm == "hdbscan":
        raise NonegError("HDBSCAN finds the number of clusters itself: leave --count out")
    if count is not None and not 1 <= count <= images:
        raise NonegError(
            f"{count} clusters of {images} images: give a number from 1 to that of the images"
        )
    points = leading_directions(embeddings, _COMPONENTS, seed)
    if algorithm == "hdbscan":
        from sklearn.cluster import HDBSCAN

        least = min(_LEAST_IN_A_CLUSTER, images - 1)
        return _by_size(HDBSCAN(min_cluster_size=max(2, least), copy=True).fit_predict(points))
    return _by_size(_k_means(points, count or _best_count(points, seed), seed))


def leading_directions(
    embeddings: Float32[np.ndarray, "images width"], most: int, seed: int
) -> Float32[np.ndarray, "images components"]:
    """Coordinates along the directions of largest variance, at most `most` of them, at length 1.

    Args:
        embeddings: h [N, D].
        most: the largest number of directions.
        seed: of the randomized decomposition.
    """
    from sklearn.decomposition import PCA

    components = min(most, *embeddings.shape)
    if bool((embeddings == embeddings[0]).all()):
        # Equal embeddings have no direction.
        return np.zeros((len(embeddings), components), np.float32)
    found = PCA(components, svd_solver="randomized", random_state=seed).fit_transform(embeddings)
    return unit(found.astype(np.float32))


def _k_means(points: np.ndarray, count: int, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans

    found: np.ndarray = KMeans(count, n_init=4, random_state=seed).fit_predict(points)
    return found


def _best_count(points: np.ndarray, seed: int) -> int:
    from sklearn.metrics import silhouette_score

    sample = np.random.default_rng(seed).permutation(len(points))[:_COMPARED]
    # A sample large enough for so many clusters.
    points = points[np.sort(sample)]
    candidates = [each for each in CANDIDATES if each <= max(2, len(points) // 5)]
    scores: dict[int, float] = {}
    for count in candidates:
        labels = _k_means(points, count, seed)
        if 1 < len(np.unique(labels)) < len(points):
            scores[count] = float(silhouette_score(points, labels))
    return max(scores, key=lambda count: scores[count]) if scores else 1


def _by_size(labels: np.ndarray) -> Int64[np.ndarray, " images"]:
    numbers, sizes = np.unique(labels[labels >= 0], return_counts=True)
    order = {int(number): rank for rank, number in enumerate(numbers[np.argsort(-sizes)])}
    return np.array([order.get(int(label), -1) for label in labels], dtype=np.int64)
