"""Which images to label first.

With few labels, typical images that differ from each other teach most, and with many those about
which a classifier is unsure (Hacohen et al. 2022, "Active learning on a budget", arXiv 2202.02794).
"""

from typing import Literal

import numpy as np
from jaxtyping import Float32, Int64

from noneg.collection.clusters import leading_directions
from noneg.collection.neighbors import nearest
from noneg.errors import NonegError

Strategy = Literal["typical", "herding", "margin", "random"]

# arXiv 2202.02794, section 3: typicality over 20 neighbors, at most 500 clusters.
_NEIGHBORS, _MOST_CLUSTERS, _COMPONENTS = 20, 500, 64
# Images that a chosen one is compared with, in herding.
_COMPARED = 20_000


def select(
    embeddings: Float32[np.ndarray, "images width"],
    count: int,
    *,
    strategy: Strategy = "typical",
    labels: Int64[np.ndarray, " images"] | None = None,
    seed: int = 0,
) -> Int64[np.ndarray, " chosen"]:
    """Positions of the images to label, the most useful first.

    "typical" (TypiClust, arXiv 2202.02794): as many clusters as there are labels; from each
    cluster without a label, the largest first, the image with the nearest neighbors. "herding"
    (MaxHerding, arXiv 2407.12212, algorithm 1): one image after the other, each the one that covers
    most of what is not covered, where an image covers another as exp(-distance^2 / 2). "margin":
    the smallest difference between the two most likely classes of a linear classifier on the
    labeled images. "random": any.

    Args:
        embeddings: h [N, D].
        count: how many.
        strategy: see above.
        labels: -1 for images without a label; those with one are not chosen again. None if no image
            has one.
        seed: of clusters, and of the random choice.

    Raises:
        NonegError: there are not so many images without a label, or "margin" has no two classes.
    """
    known = np.zeros(len(embeddings), bool) if labels is None else labels >= 0
    free = np.flatnonzero(~known)
    if not 1 <= count <= len(free):
        raise NonegError(
            f"{count} of {len(free)} images without a label cannot be chosen: give a number from 1 "
            "to that"
        )
    random = np.random.default_rng(seed)
    if strategy == "random":
        return random.permutation(free)[:count]
    if strategy == "margin":
        return _margin(embeddings, labels, known, count)
    points = leading_directions(embeddings, _COMPONENTS, seed)
    choose = _typical if strategy == "typical" else _herding
    return choose(points, known, count, seed)


def _typical(
    points: Float32[np.ndarray, "images width"], known: np.ndarray, count: int, seed: int
) -> Int64[np.ndarray, " chosen"]:
    from sklearn.cluster import KMeans, MiniBatchKMeans

    number = min(int(known.sum()) + count, _MOST_CLUSTERS, len(points))
    kind = KMeans if number <= 50 else MiniBatchKMeans
    clusters = kind(number, n_init=3, random_state=seed).fit_predict(points)
    typicality = np.empty(len(points), np.float32)
    for cluster in range(number):
        members = np.flatnonzero(clusters == cluster)
        if len(members) < 2:
            typicality[members] = 0
            continue
        around = nearest(points[members], points[members], _NEIGHBORS, same=True)
        # The mean distance of vectors of length 1.
        distance = np.sqrt(np.maximum(2 - 2 * around.cosine, 0)).mean(axis=1)
        typicality[members] = 1 / np.maximum(distance, 1e-6)
    taken = known.copy()
    sizes = np.bincount(clusters, minlength=number)
    labeled = np.bincount(clusters[known], minlength=number)
    left = np.bincount(clusters[~known], minlength=number)
    chosen: list[int] = []
    while len(chosen) < count:
        # Clusters with the fewest labels first, and the largest of these.
        open_clusters = np.flatnonzero(left > 0)
        cluster = open_clusters[np.lexsort((-sizes[open_clusters], labeled[open_clusters]))[0]]
        members = np.flatnonzero((clusters == cluster) & ~taken)
        best = int(members[np.argmax(typicality[members])])
        chosen.append(best)
        taken[best] = True
        labeled[cluster] += 1
        left[cluster] -= 1
    return np.array(chosen, dtype=np.int64)


def _herding(
    points: Float32[np.ndarray, "images width"], known: np.ndarray, count: int, seed: int
) -> Int64[np.ndarray, " chosen"]:
    compared = points
    if len(points) > _COMPARED:
        compared = points[np.random.default_rng(seed).permutation(len(points))[:_COMPARED]]

    def covered_by(rows: np.ndarray) -> np.ndarray:
        # Vectors of length 1: their squared distance is 2 - 2 cos, and the kernel's width is 1.
        cover: np.ndarray = np.exp(points[rows] @ compared.T - 1)
        return cover

    covered = np.zeros(len(compared), np.float32)
    for row in np.flatnonzero(known):
        np.maximum(covered, covered_by(np.array([row]))[0], out=covered)
    # Gains only shrink, so an old gain is an upper bound (Minoux 1978): most stay uncomputed.
    bound = np.where(known, -np.inf, np.inf)
    fresh = np.full(len(points), -1)
    chosen: list[int] = []
    block = max(1, 2**24 // len(compared))
    while len(chosen) < count:
        order = np.argsort(-bound, kind="stable")[:block]
        stale = order[fresh[order] != len(chosen)]
        if fresh[order[0]] == len(chosen):
            best = int(order[0])
            np.maximum(covered, covered_by(order[:1])[0], out=covered)
            chosen.append(best)
            bound[best] = -np.inf
            continue
        stale = stale[: block if not chosen else 256]
        bound[stale] = np.maximum(covered_by(stale) - covered, 0).sum(axis=1)
        fresh[stale] = len(chosen)
    return np.array(chosen, dtype=np.int64)


def _margin(
    embeddings: Float32[np.ndarray, "images width"],
    labels: Int64[np.ndarray, " images"] | None,
    known: np.ndarray,
    count: int,
) -> Int64[np.ndarray, " chosen"]:
    if labels is None or len(np.unique(labels[known])) < 2:
        raise NonegError(
            "margin needs labels of at least two classes: use typical or herding for the first ones"
        )
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1_000))
    model.fit(embeddings[known], labels[known])
    free = np.flatnonzero(~known)
    likely = np.sort(model.predict_proba(embeddings[free]), axis=1)
    order = np.argsort(likely[:, -1] - likely[:, -2], kind="stable")
    return free[order][:count].astype(np.int64)
