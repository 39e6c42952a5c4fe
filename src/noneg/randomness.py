"""Random numbers that are a function of their coordinates, not of a generator's state.

The random number for (seed, epoch, image, view, operation) is a hash of these coordinates. So the
views of an image do not depend on its batch, chunk, worker or rank, nor on a restart. The hash is
SplitMix64 (Steele, Lea and Flood, OOPSLA 2014). NumPy computes it for images on every device, so
the numbers are the same everywhere, and a GPU does not run hundreds of tiny kernels.
"""

import numpy as np
from jaxtyping import Float32, Int64, UInt64

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MULTIPLIER_1 = 0xBF58476D1CE4E5B9
_MULTIPLIER_2 = 0x94D049BB133111EB


def _mix(value: UInt64[np.ndarray, "*shape"]) -> UInt64[np.ndarray, "*shape"]:
    """SplitMix64's output function."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(_MULTIPLIER_1)
    value ^= value >> np.uint64(27)
    value *= np.uint64(_MULTIPLIER_2)
    value ^= value >> np.uint64(31)
    return value


def _mix_integer(value: int) -> int:
    """`_mix` of one Python integer."""
    value &= _MASK
    value = ((value ^ (value >> 30)) * _MULTIPLIER_1) & _MASK
    value = ((value ^ (value >> 27)) * _MULTIPLIER_2) & _MASK
    return value ^ (value >> 31)


def hash_key(*coordinates: int) -> int:
    """A 63-bit non-negative integer that depends on every coordinate and on their order."""
    key = 0
    for coordinate in coordinates:
        key = _mix_integer(_mix_integer(key + _GOLDEN) ^ coordinate)
    return key >> 1


def hash_index(
    key: int, index: Int64[np.ndarray, "batch"], count: int
) -> UInt64[np.ndarray, "batch {count}"]:
    """`count` hashed integers for each index: one SplitMix64 stream per (key, index)."""
    start = _mix(_mix(index.view(np.uint64) + np.uint64(key)) + np.uint64(_GOLDEN))
    offsets = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    return _mix(start[:, None] + offsets)


def uniform(
    key: int, index: Int64[np.ndarray, "batch"], count: int
) -> Float32[np.ndarray, "batch {count}"]:
    """Uniform numbers in [0, 1): multiples of 2^-24, which float32 represents exactly.

    Args:
        key: from `hash_key`; use a different key for each purpose, so that no number is used twice.
        index: which images these are.
        count: how many numbers per image; a larger count does not change the first ones.
    """
    upper_bits = hash_index(key, index, count) >> np.uint64(40)
    return upper_bits.astype(np.float32) * np.float32(2.0**-24)


def permutation(key: int, length: int) -> Int64[np.ndarray, "{length}"]:
    """A random order of 0 ... length - 1, the same on every machine."""
    hashed = hash_index(key, np.arange(length), 1)[:, 0]
    return np.argsort(hashed.view(np.int64), kind="stable")
