"""Jitter and grayscale are affine in the channels and in the view's mean color."""

import math

import numpy as np
from jaxtyping import Float32

from noneg.views.draw import Draw, Numbers

# Rec. 601 luma, the weights torchvision and Pillow use for gray.
LUMA = (0.2989, 0.587, 0.114)

Matrices = Float32[np.ndarray, "batch channels channels"]


def color_matrices(parameters: Draw, channels: int) -> tuple[Matrices, Matrices]:
    """Jitter in each image's own order, then grayscale, as `A @ color + D @ mean`.

    `mean` is the view's mean color before the jitter, which contrast turns about.

    Returns:
        A and D.
    """
    batch = len(parameters.hue)
    identity = np.eye(channels, dtype=np.float32)
    # Brightness, contrast, saturation, hue: as `Draw.order` counts them.
    operations = np.empty((4, batch, channels, channels), dtype=np.float32)
    operations[0] = parameters.brightness[:, :, None] * identity
    operations[1] = parameters.contrast[:, :, None] * identity
    if channels == 3:
        gray = np.tile(np.array(LUMA, dtype=np.float32), (3, 1))
        operations[2] = gray + parameters.saturation[:, None, None] * (identity - gray)
        operations[3] = _hue_rotation(parameters.hue)
    else:
        gray = identity
        operations[2:] = identity
    image = np.arange(batch)
    # A and D side by side: what comes after the contrast is done to both.
    both = np.zeros((batch, channels, 2 * channels), dtype=np.float32)
    both[:, :, :channels] = identity
    for operation in parameters.order.T:
        contrasted = operation == 1
        A = both[contrasted, :, :channels]
        both = operations[operation, image] @ both
        shift = (1 - parameters.contrast[contrasted])[:, :, None]
        both[contrasted, :, channels:] = shift * (gray @ A)
    both[parameters.gray] = gray @ both[parameters.gray]
    return both[:, :, :channels].copy(), both[:, :, channels:].copy()


def _hue_rotation(turns: Numbers) -> Float32[np.ndarray, "batch 3 3"]:
    """Rodrigues' rotation about the gray axis, (1, 1, 1) / sqrt(3)."""
    angle = np.float32(2 * math.pi) * turns[:, None, None]
    third = np.full((3, 3), 1 / 3, dtype=np.float32)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], dtype=np.float32) / np.float32(3**0.5)
    turned: Matrices = np.cos(angle) * (np.eye(3, dtype=np.float32) - third) + third
    turned += np.sin(angle) * cross
    return turned
