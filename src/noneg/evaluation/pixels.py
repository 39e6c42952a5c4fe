"""Raw pixels as features: the simplest baseline."""

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

LARGEST_PIXEL_SIDE = 32
"""At this side raw RGB pixels are 3,072 features; at 224 they would be 150,528."""


def centered_pixels(
    bank: UInt8[np.ndarray, "bank channels stored stored"],
    test: UInt8[np.ndarray, "test channels stored stored"],
    side: int,
) -> tuple[Float32[np.ndarray, "bank width"], Float32[np.ndarray, "test width"]]:
    """Pixels as features [N, C * side * side], minus the mean image of the bank."""
    bank_features, test_features = _flat(bank, side), _flat(test, side)
    mean = bank_features.mean(axis=0)
    return bank_features - mean, test_features - mean


def resized(
    pixels: UInt8[np.ndarray, "images channels stored stored"], side: int
) -> Float[Tensor, "images channels side side"]:
    """uint8 [N, C, S, S] -> float32 [N, C, side, side] in [0, 1]."""
    images = torch.from_numpy(pixels).float() / 255
    if images.shape[-1] == side:
        return images
    return interpolate(images, size=(side, side), mode="bilinear", antialias=True)


def _flat(
    pixels: UInt8[np.ndarray, "images channels stored stored"], side: int
) -> Float32[np.ndarray, "images width"]:
    blocks = [
        resized(pixels[start : start + 1_000], side).flatten(1)
        for start in range(0, len(pixels), 1_000)
    ]
    return torch.cat(blocks).numpy()
