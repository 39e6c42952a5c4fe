"""The images of a collection that are nearest to other pictures."""

from pathlib import Path

import numpy as np
from jaxtyping import Float32

from noneg.collection.approximate import kept_index
from noneg.collection.neighbors import Neighbors, comparable, nearest


def search(
    embeddings: Float32[np.ndarray, "images width"],
    queries: Float32[np.ndarray, "queries width"],
    k: int,
) -> Neighbors:
    """The k most similar images for each query, exactly.

    The cosine is that of embeddings that are whitened by the collection, as for the scores.

    Args:
        embeddings: h of the collection [N, D].
        queries: h of the queries [Q, D].
        k: images per query.

    Raises:
        NonegError: k is below 1, or embeddings are not finite.
    """
    vectors, asked = comparable(embeddings, queries)
    return nearest(asked, vectors, k)


def search_approximately(
    embeddings: Float32[np.ndarray, "images width"],
    queries: Float32[np.ndarray, "queries width"],
    k: int,
    *,
    file: Path | None = None,
) -> tuple[Neighbors, float]:
    """Like `search`, with an index that is built once; see `noneg.collection.approximate`.

    Args:
        embeddings: h of the collection [N, D], N of at least 2.
        queries: h of the queries [Q, D].
        k: images per query.
        file: where the index is kept for the next time.

    Returns:
        The neighbors, and the measured recall of the index.

    Raises:
        NonegError: faiss is not installed, k is below 1, or embeddings are not finite.
    """
    vectors, asked = comparable(embeddings, queries)
    index = kept_index(file, vectors)
    return index.nearest(asked, k), index.recall
