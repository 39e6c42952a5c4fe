"""A deterministic fifth of labeled images, the same share of every class."""

import numpy as np
from jaxtyping import Bool, Int


def every_fifth(labels: Int[np.ndarray, " images"], *, seed: int) -> Bool[np.ndarray, " images"]:
    """Mark a random fifth of the images, stratified: of n images of a class, n / 5 up or down.

    The images are shuffled, put in order of class, and every fifth is marked, which needs no
    exception for classes of a few images.

    Args:
        labels: classes [N].
        seed: which fifth.

    Returns:
        bool [N], true for N // 5 images rounded up or down.
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    marked = np.zeros(len(labels), dtype=bool)
    marked[by_class[2::5]] = True
    return marked
