"""The random parameters of a view, independent for each image and independent of its batch."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64

from noneg.randomness import uniform
from noneg.views.policy import View

CROP_ATTEMPTS = 10
# An area and a ratio per attempt, and a position in each direction.
CROP_NUMBERS = 2 * CROP_ATTEMPTS + 2

Floats = Float32[np.ndarray, "batch"]
Flags = Bool[np.ndarray, "batch"]


@dataclass(frozen=True)
class ViewParameters:
    """The parameters of one view of every image in a batch.

    Boxes are in whole input pixels. If an operation is not applied, its factor is 1, and its angle
    or sigma is 0. `order` is the order of brightness (0), contrast (1), saturation (2) and hue (3).
    """

    top: Floats
    left: Floats
    height: Floats
    width: Floats
    flip: Flags
    vertical_flip: Flags
    transpose: Flags
    order: Int64[np.ndarray, "batch 4"]
    brightness: Float32[np.ndarray, "batch factors"]
    contrast: Float32[np.ndarray, "batch factors"]
    saturation: Floats
    hue: Floats
    grayscale: Flags
    sigma: Floats
    solarize: Flags


def sample_parameters(
    view: View, key: int, index: Int64[np.ndarray, "batch"], channels: int, height: int, width: int
) -> ViewParameters:
    """Sample the parameters of one view; they only depend on the key and each image's index.

    Args:
        view: the ranges and probabilities.
        key: from `noneg.randomness.hash_key`.
        index: which images these are.
        channels: of the images.
        height: of the images, in pixels.
        width: of the images, in pixels.
    """
    # If images are neither gray nor RGB, each channel has its own brightness and contrast.
    factors = 1 if channels in (1, 3) else channels
    u = uniform(key, index, CROP_NUMBERS + 7 + 4 + 3 + 2 * factors)
    crop, applied, order, amounts, factor = np.split(u, np.cumsum([CROP_NUMBERS, 7, 4, 3]), axis=1)
    top, left, box_height, box_width = sample_crop(view, crop, height, width)
    applied = applied < np.array(
        [
            view.flip,
            view.vertical_flip,
            view.transpose,
            view.jitter,
            view.grayscale,
            view.blur,
            view.solarize,
        ],
        dtype=np.float32,
    )
    flip, vertical_flip, transpose, jitter, grayscale, blur, solarize = applied.T
    # From [0, 1) to [-1, 1), or to 0 without jitter.
    factor = jitter[:, None] * (2 * factor - 1)
    saturation, hue = jitter * (2 * amounts[:, :2].T - 1)
    low, high = view.blur_sigma
    return ViewParameters(
        top=top,
        left=left,
        height=box_height,
        width=box_width,
        flip=flip,
        vertical_flip=vertical_flip,
        transpose=transpose,
        order=order.argsort(axis=1),
        brightness=1 + view.brightness * factor[:, :factors],
        contrast=1 + view.contrast * factor[:, factors:],
        saturation=1 + view.saturation * saturation,
        hue=view.hue * hue,
        grayscale=grayscale,
        sigma=blur * (low + (high - low) * amounts[:, 2]),
        solarize=solarize,
    )


def sample_crop(
    view: View, u: Float32[np.ndarray, "batch numbers"], height: int, width: int
) -> tuple[Floats, Floats, Floats, Floats]:
    """Inception's random resized crop: the first of ten boxes that fits, or a central box.

    Args:
        view: the ranges of the box's area and ratio.
        u: uniform in [0, 1), `CROP_NUMBERS` per image.
        height: of the images, in pixels.
        width: of the images, in pixels.

    Returns:
        top, left, height and width of the box.
    """
    low, high = view.crop_scale
    area = height * width * (low + (high - low) * u[:, :CROP_ATTEMPTS])
    low, high = (math.log(ratio) for ratio in view.crop_ratio)
    ratio = np.exp(low + (high - low) * u[:, CROP_ATTEMPTS : 2 * CROP_ATTEMPTS])
    widths = np.maximum(np.rint(np.sqrt(area * ratio)), 1)
    heights = np.maximum(np.rint(np.sqrt(area / ratio)), 1)
    fits = (widths <= width) & (heights <= height)
    image, first = np.arange(len(u)), fits.argmax(axis=1)
    box_width, box_height = widths[image, first], heights[image, first]
    top = np.floor(u[:, -2] * (height - box_height + 1))
    left = np.floor(u[:, -1] * (width - box_width + 1))

    none_fits = ~fits.any(axis=1)
    if none_fits.any():
        # The largest central box whose ratio is as close to the image's as the range allows.
        central_ratio = min(max(width / height, view.crop_ratio[0]), view.crop_ratio[1])
        central_width = max(1, round(min(width, height * central_ratio)))
        central_height = max(1, round(min(height, width / central_ratio)))
        box_width[none_fits], box_height[none_fits] = central_width, central_height
        top[none_fits] = (height - central_height) // 2
        left[none_fits] = (width - central_width) // 2
    return top, left, box_height, box_width
