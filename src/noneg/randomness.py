"""Random numbers that are a function of their coordinates, not of a generator's history.

The number drawn for (seed, epoch, image, view, operation) is a hash of these coordinates. So an
image's views do not depend on which batch, chunk, worker or rank it is in, nor on a restart.
The hash is SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), in wrapping 64-bit integers, which are
the same on every device.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB


def _signed(value: int) -> int:
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _shift_right(value: Tensor, bits: int) -> Tensor:
    # torch shifts signed integers arithmetically; the hash needs zeros from the left.
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mix(value: Tensor) -> Tensor:
    value = (value ^ _shift_right(value, 30)) * _signed(_FIRST)
    value = (value ^ _shift_right(value, 27)) * _signed(_SECOND)
    return value ^ _shift_right(value, 31)


def _mix_integer(value: int) -> int:
    value &= _MASK
    value = ((value ^ (value >> 30)) * _FIRST) & _MASK
    value = ((value ^ (value >> 27)) * _SECOND) & _MASK
    return value ^ (value >> 31)


def hash_key(*coordinates: int) -> int:
    """A 63-bit non-negative integer that depends on every coordinate and on their order."""
    key = 0
    for coordinate in coordinates:
        key = _mix_integer(_mix_integer(key + _GOLDEN) ^ coordinate)
    return key >> 1


def hash_index(key: int, index: Int[Tensor, "batch"], count: int) -> Int[Tensor, "batch count"]:
    """`count` hashed 64-bit integers for each index: SplitMix64 streams keyed by (key, index)."""
    start = _mix(_mix(index + _signed(key)) + _signed(_GOLDEN))
    lane = torch.arange(1, count + 1, device=index.device) * _signed(_GOLDEN)
    return _mix(start[:, None] + lane)


def uniform(key: int, index: Int[Tensor, "batch"], count: int) -> Float[Tensor, "batch count"]:
    """Uniform float32 numbers in [0, 1), on the 2^24 values that float32 spaces evenly.

    Args:
        key: from `hash_key`; one key for each use, so that no two uses share a draw.
        index: int64 [batch], which images these are; decides device.
        count: numbers for each image.
    """
    return _shift_right(hash_index(key, index, count), 40).to(torch.float32) * 2.0**-24


def permutation(key: int, length: int) -> Int[Tensor, "length"]:
    """A random order of 0 ... length - 1, the same on every machine."""
    return hash_index(key, torch.arange(length), 1)[:, 0].argsort(stable=True)
