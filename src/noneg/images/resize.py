"""Resize the short side, crop the central square, and convert channels and bit depth."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from noneg.errors import NonegError


def resize_and_center_crop(
    picture: Image.Image, size: int, exact_size: tuple[float, float] | None = None
) -> Image.Image:
    """The central square of an L or RGB picture, resized to `size` x `size` pixels.

    Resizing is bilinear with antialiasing. If the short side already has `size` pixels, the pixels
    stay exactly the same.

    Args:
        picture: of mode L or RGB.
        size: side of the square, in pixels.
        exact_size: width and height of the content, from the top left, if they are not whole
            numbers; by default those of the picture.
    """
    width, height = exact_size or picture.size
    side = min(width, height)
    if side == size:
        left, top = int(width - side) // 2, int(height - side) // 2
        return picture.crop((left, top, left + size, top + size))
    box_left, box_top = (width - side) / 2, (height - side) / 2
    box = (box_left, box_top, box_left + side, box_top + side)
    # The filter also reads pixels outside the box. So this equals resizing the whole picture and
    # cropping it, without the huge intermediate picture that 20000 x 3 pixels would need.
    return picture.resize((size, size), Image.Resampling.BILINEAR, box=box)


def picture_to_pixels(
    picture: Image.Image, channels: int
) -> UInt8[np.ndarray, "{channels} height width"]:
    """A picture of mode L or RGB -> uint8 [channels, H, W]; channels is 1 (luminance) or 3."""
    if channels == 1:
        picture = picture.convert("L")
    pixels = np.asarray(picture)
    # Both ways copy, because np.asarray may return a read-only array.
    if pixels.ndim == 2:
        return np.repeat(pixels[None], channels, axis=0)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def array_to_pixels(
    image: UInt8[np.ndarray, "height width available"], channels: int, size: int
) -> UInt8[np.ndarray, "{channels} {size} {size}"]:
    """An array with channels last, [H, W, C] -> uint8 [channels, size, size].

    One channel becomes three by repetition. Three channels, or four (RGBA, on white), become one
    by luminance. Other numbers of channels must be equal: see `check_channels`.
    """
    available = image.shape[2]
    if available == 4 and channels == 1:
        alpha = image[:, :, 3:].astype(np.uint32)
        over_white = image[:, :, :3] * alpha + 255 * (255 - alpha)
        image, available = ((over_white + 127) // 255).astype(np.uint8), 3
    if available == 3:
        picture = Image.fromarray(np.ascontiguousarray(image))
        # Luminance first: it is cheaper to resize one channel than three.
        picture = picture.convert("L") if channels == 1 else picture
        return picture_to_pixels(resize_and_center_crop(picture, size), channels)
    planes = [
        np.asarray(resize_and_center_crop(Image.fromarray(np.ascontiguousarray(plane)), size))
        for plane in image.transpose(2, 0, 1)
    ]
    return np.repeat(np.stack(planes), channels // available, axis=0)


def check_channels(available: int, channels: int, what: str) -> None:
    """Raise NonegError unless `available` channels can be converted to `channels`.

    Args:
        available: channels that the images have.
        channels: channels that were asked for.
        what: the images, for the message.
    """
    if available != channels and (available, channels) not in ((1, 3), (3, 1), (4, 1)):
        raise NonegError(
            f"The {what} has {available} channels and {channels} were asked for: ask for "
            f"{available}, or convert the images to {channels} channels first."
        )


def to_uint8(values: np.ndarray) -> UInt8[np.ndarray, "*shape"]:
    """uint8 as it is; other integers from 0 to 65535 -> uint8, round(x / 257), in any shape."""
    if values.dtype == np.uint8:
        return values
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
