"""Labels that the most similar images contradict."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np
from jaxtyping import Float32, Int64

from noneg.collection.neighbors import comparable, nearest
from noneg.errors import NonegError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

NEIGHBORS = 20
# As in the nearest-neighbor probe: nearer ones count more.
_TEMPERATURE = 0.07


@final
@dataclass(frozen=True, eq=False)
class Doubts:
    """What its neighbors say about each image's label.

    Attributes:
        own: share of the neighbors' votes for the image's own label [N], in [0, 1].
        suggested: the other label with most votes [N].
        share: its share [N].
    """

    own: Float32[np.ndarray, " images"]
    suggested: Int64[np.ndarray, " images"]
    share: Float32[np.ndarray, " images"]

    def order(self) -> Int64[np.ndarray, " suspects"]:
        """Images whose neighbors prefer another label, the clearest first."""
        gap = self.share - self.own
        suspects = np.flatnonzero(gap > 0)
        return suspects[np.argsort(-gap[suspects], kind="stable")].astype(np.int64)


def doubt_labels(
    embeddings: Float32[np.ndarray, "images width"], labels: Int64[np.ndarray, " images"]
) -> Doubts:
    """Let the 20 nearest other images vote for their labels.

    A vote weighs exp(cos / 0.07), and classes count alike however large they are: a vote is divided
    by the share of its class, as otherwise every rare label would look wrong.

    Args:
        embeddings: h [N, D].
        labels: from 0 [N].

    Raises:
        NonegError: there are fewer than two classes, or images.
    """
    if len(np.unique(labels)) < 2:
        raise NonegError("labels of one class cannot contradict each other: give at least two")
    (vectors,) = comparable(embeddings)
    around = nearest(vectors, vectors, NEIGHBORS, same=True)
    classes = int(labels.max()) + 1
    weight = np.exp((around.cosine.astype(np.float64) - 1) / _TEMPERATURE)
    weight /= np.bincount(labels, minlength=classes)[labels[around.index]]
    votes = np.zeros((len(labels), classes))
    rows = np.arange(len(labels))
    for column in range(around.index.shape[1]):
        votes[rows, labels[around.index[:, column]]] += weight[:, column]
    votes /= votes.sum(axis=1, keepdims=True)
    own = votes[rows, labels].copy()
    votes[rows, labels] = -1
    suggested = votes.argmax(axis=1)
    return Doubts(
        own.astype(np.float32),
        suggested.astype(np.int64),
        votes[rows, suggested].astype(np.float32),
    )


def knn_graph(embeddings: Float32[np.ndarray, "images width"], k: int = NEIGHBORS) -> "csr_matrix":
    """The exact graph of nearest neighbors, as cleanlab's `find_issues(knn_graph=...)` takes it.

    Args:
        embeddings: h [N, D].
        k: neighbors of each image.

    Returns:
        A sparse matrix [N, N] of cosine distances, k in each row, in ascending order.
    """
    from scipy.sparse import csr_matrix

    (vectors,) = comparable(embeddings)
    around = nearest(vectors, vectors, k, same=True)
    count, k = around.index.shape
    # An explicit zero would look like no neighbor.
    distance = np.maximum(1 - around.cosine.astype(np.float64), 1e-12)
    starts = np.arange(0, count * k + 1, k)
    return csr_matrix((distance.ravel(), around.index.ravel(), starts), shape=(count, count))
