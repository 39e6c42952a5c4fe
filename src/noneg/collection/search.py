"""The images of a collection that are nearest to other pictures."""

import numpy as np
from jaxtyping import Float32

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
