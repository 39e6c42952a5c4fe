"""The random parameters of a view: for each image its own, whatever batch it is in."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64

from noneg.randomness import uniform
from noneg.views.policy import View

CROP_ATTEMPTS = 10
CROP_NUMBERS = 2 * CROP_ATTEMPTS + 2

Numbers = Float32[np.ndarray, "batch"]
Switches = Bool[np.ndarray, "batch"]


@dataclass(frozen=True)
class Draw:
    """The parameters of one view of every image in a batch.

    Boxes are whole input pixels; factors are 1, angles and sigmas 0 where an operation was not
    drawn. `order` holds the order of brightness (0), contrast (1), saturation (2) and hue (3).
    """

    top: Numbers
    left: Numbers
    height: Numbers
    width: Numbers
    flip: Switches
    vertical_flip: Switches
    transpose: Switches
    order: Int64[np.ndarray, "batch 4"]
    brightness: Float32[np.ndarray, "batch factors"]
    contrast: Float32[np.ndarray, "batch factors"]
    saturation: Numbers
    hue: Numbers
    gray: Switches
    sigma: Numbers
    solarize: Switches


def draw_crop(
    view: View, u: Float32[np.ndarray, "batch numbers"], height: int, width: int
) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Random resized crop as Inception has it: the first of ten that fits, else the center.

    Args:
        view: bounds of the box's area and ratio.
        u: uniform in [0, 1), `CROP_NUMBERS` of them for each image.
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
        whole_ratio = min(max(width / height, view.crop_ratio[0]), view.crop_ratio[1])
        whole_width = max(1, round(min(width, height * whole_ratio)))
        whole_height = max(1, round(min(height, width / whole_ratio)))
        box_width[none_fits], box_height[none_fits] = whole_width, whole_height
        top[none_fits] = (height - whole_height) // 2
        left[none_fits] = (width - whole_width) // 2
    return top, left, box_height, box_width


def draw(
    view: View, key: int, index: Int64[np.ndarray, "batch"], channels: int, height: int, width: int
) -> Draw:
    """The random parameters of one view: a function of the key and of each image's index alone."""
    # Images that are neither gray nor RGB have channels that vary on their own.
    factors = 1 if channels in (1, 3) else channels
    u = uniform(key, index, CROP_NUMBERS + 7 + 4 + 3 + 2 * factors)
    crop, happens, order, amounts, factor = np.split(u, np.cumsum([CROP_NUMBERS, 7, 4, 3]), axis=1)
    top, left, box_height, box_width = draw_crop(view, crop, height, width)
    happens = happens < np.array(
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
    flip, vertical_flip, transpose, jitter, gray, blur, solarize = happens.T
    # From [0, 1) to [-1, 1), and to nothing where there is no jitter.
    factor = jitter[:, None] * (2 * factor - 1)
    saturation, hue = jitter * (2 * amounts[:, :2].T - 1)
    low, high = view.blur_sigma
    return Draw(
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
        gray=gray,
        sigma=blur * (low + (high - low) * amounts[:, 2]),
        solarize=solarize,
    )
