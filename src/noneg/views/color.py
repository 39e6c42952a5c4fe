"""Color jitter and grayscale as matrices: affine in the channels and in the view's mean color."""

import math

import numpy as np
from jaxtyping import Float32

from noneg.views.parameters import Floats, ViewParameters

# Rec. 601 luma, the weights that torchvision and Pillow use for grayscale.
LUMA = (0.2989, 0.587, 0.114)

Matrices = Float32[np.ndarray, "batch channels channels"]


def color_matrices(parameters: ViewParameters, channels: int) -> tuple[Matrices, Matrices]:
    """Jitter in each image's own order, then grayscale, as `A @ color + D @ mean`.

    `mean` is the view's mean color before the jitter. Contrast needs it: it scales the difference
    from the mean gray.

    Returns:
        A and D.
    """
    batch = len(parameters.hue)
    identity = np.eye(channels, dtype=np.float32)
    # Brightness, contrast, saturation, hue, in the order of `ViewParameters.order`.
    operations = np.empty((4, batch, channels, channels), dtype=np.float32)
    operations[0] = parameters.brightness[:, :, None] * identity
    operations[1] = parameters.contrast[:, :, None] * identity
    if channels == 3:
        to_gray = np.tile(np.array(LUMA, dtype=np.float32), (3, 1))
        operations[2] = to_gray + parameters.saturation[:, None, None] * (identity - to_gray)
        operations[3] = _hue_rotation(parameters.hue)
    else:
        to_gray = identity
        operations[2:] = identity
    image = np.arange(batch)
    # A and D side by side, because the operations after contrast apply to both.
    both = np.zeros((batch, channels, 2 * channels), dtype=np.float32)
    both[:, :, :channels] = identity
    for operation in parameters.order.T:
        contrasted = operation == 1
        A = both[contrasted, :, :channels]
        both = operations[operation, image] @ both
        shift = (1 - parameters.contrast[contrasted])[:, :, None]
        both[contrasted, :, channels:] = shift * (to_gray @ A)
    both[parameters.grayscale] = to_gray @ both[parameters.grayscale]
    return both[:, :, :channels].copy(), both[:, :, channels:].copy()


def _hue_rotation(turns: Floats) -> Float32[np.ndarray, "batch 3 3"]:
    """Rodrigues' rotation about the gray axis, (1, 1, 1) / sqrt(3)."""
    angle = np.float32(2 * math.pi) * turns[:, None, None]
    third = np.full((3, 3), 1 / 3, dtype=np.float32)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], dtype=np.float32) / np.float32(3**0.5)
    rotation: Matrices = np.cos(angle) * (np.eye(3, dtype=np.float32) - third) + third
    rotation += np.sin(angle) * cross
    return rotation
