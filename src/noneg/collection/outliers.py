"""Images that no other image resembles."""

import numpy as np
from jaxtyping import Float32

from noneg.collection.neighbors import comparable, nearest

NEIGHBORS = 10


def strangeness(embeddings: Float32[np.ndarray, "images width"]) -> Float32[np.ndarray, " images"]:
    """1 - the mean cosine with the 10 nearest images, in [0, 2]: high if no image is similar.

    Args:
        embeddings: h [N, D] of at least two images.

    Raises:
        NonegError: there are fewer than two images.
    """
    (vectors,) = comparable(embeddings)
    return nearest(vectors, vectors, NEIGHBORS, same=True).strangeness
