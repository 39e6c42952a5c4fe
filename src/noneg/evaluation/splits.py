"""A random fifth of labeled images, with the same share of every class."""

import numpy as np
from jaxtyping import Bool, Int


def every_fifth(labels: Int[np.ndarray, " images"], *, seed: int) -> Bool[np.ndarray, " images"]:
    """Mark a random, stratified fifth of the images: n / 5 of each class of n, rounded up or down.

    The images are shuffled and sorted by class, and every fifth is marked. So small classes need no
    special case.

    Args:
        labels: classes [N].
        seed: decides the fifth.

    Returns:
        bool [N], true for N / 5 images, rounded up or down.
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    marked = np.zeros(len(labels), dtype=bool)
    marked[by_class[2::5]] = True
    return marked
