"""Resize to the short side, and take the central square."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from noneg.errors import NonegError


def fit(picture: Image.Image, size: int, extent: tuple[float, float] | None = None) -> Image.Image:
    """The central square of an L or RGB picture, antialiased bilinear, `size` pixels wide.

    A picture whose short side is `size` already keeps its pixels exactly.

    Args:
        picture: of mode L or RGB.
        size: side of the square, in pixels.
        extent: width and height of what counts, from the top left; the whole picture by default.
    """
    width, height = extent or picture.size
    side = min(width, height)
    if side == size:
        column, row = int(width - side) // 2, int(height - side) // 2
        return picture.crop((column, row, column + size, row + size))
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    # The filter reaches beyond the box, so this is resizing the whole and cropping afterwards,
    # without the huge intermediate that a 20000 x 3 picture would need.
    return picture.resize((size, size), Image.Resampling.BILINEAR, box=box)


def picture_to_pixels(
    picture: Image.Image, channels: int, size: int
) -> UInt8[np.ndarray, "{channels} {size} {size}"]:
    """An L or RGB picture -> uint8 [channels, size, size]; channels is 1 (luminance) or 3."""
    if channels == 1 and picture.mode != "L":
        picture = picture.convert("L")
    pixels = np.asarray(fit(picture, size))
    if pixels.ndim == 2:
        # A copy either way: what np.asarray gives may be read-only.
        return np.repeat(pixels[None], channels, axis=0)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def array_to_pixels(
    image: UInt8[np.ndarray, "height width have"], channels: int, size: int
) -> UInt8[np.ndarray, "{channels} {size} {size}"]:
    """An image with its channels last, [H, W, C] -> uint8 [channels, size, size].

    One channel becomes three by repetition; three, or four (RGBA, on white), become one by
    luminance. Other counts must be equal: see `check_channels`.
    """
    have = image.shape[2]
    if have == 4 and channels == 1:
        alpha = image[:, :, 3:].astype(np.uint32)
        over_white = image[:, :, :3] * alpha + 255 * (255 - alpha)
        image, have = ((over_white + 127) // 255).astype(np.uint8), 3
    if have == 3:
        return picture_to_pixels(Image.fromarray(np.ascontiguousarray(image)), channels, size)
    planes = [
        np.asarray(fit(Image.fromarray(np.ascontiguousarray(image[:, :, channel])), size))
        for channel in range(have)
    ]
    return np.repeat(np.stack(planes), channels // have, axis=0)


def check_channels(have: int, wanted: int, what: str) -> None:
    """Raise NonegError unless images of `have` channels can be given with `wanted` channels."""
    if have != wanted and (have, wanted) not in ((1, 3), (3, 1), (4, 1)):
        raise NonegError(
            f"{what} has {have} channels and {wanted} were asked for: ask for {have}, "
            f"or convert the images to {wanted} channels first."
        )


def sixteen_to_eight_bit(values: np.ndarray) -> np.ndarray:
    """Integers from 0 to 65535 -> uint8, round(x / 257), in any shape."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
