"""Decode an image file or a PIL picture into pixels as a person would see them.

That is: upright according to EXIF, transparency on white, the first frame of an animation.
"""

import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, cast

import numpy as np
from jaxtyping import UInt8

# Without these imports, Pillow would import its plugins on first use, in whichever thread that is.
from PIL import (
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,  # noqa: F401
    MpoImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from noneg.images.resize import picture_to_pixels, resize_and_center_crop, to_uint8
from noneg.images.source import Unreadable, is_of_the_machine

# Pillow recognizes a format by the content of the file, and runs other programs for some (EPS).
# For these formats it runs none.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_MAX_PIXELS = 200_000_000
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(
    file: BinaryIO, channels: int, size: int
) -> UInt8[np.ndarray, "{channels} {size} {size}"]:
    """Decode an open image file; channels is 1 or 3.

    Raises:
        Unreadable: the file is empty, not an image, broken or too large, or its values have no
            defined color.
    """
    with _open(file) as picture:
        # A JPEG can be decoded at a reduced size. Twice the final size is enough for the
        # antialiasing filter: the result looks the same.
        reduced = picture.draft(None, (2 * size, 2 * size))
        # The reduced size is rounded up to whole pixels. The fraction matters in small pictures.
        exact_size = reduced and reduced[1][2:]
        return _to_pixels(picture, channels, size, exact_size)


def decode_picture(
    picture: Image.Image, channels: int, size: int
) -> UInt8[np.ndarray, "{channels} {size} {size}"]:
    """Decode a picture that Pillow has already opened; channels is 1 or 3.

    Raises:
        Unreadable: the picture is broken or too large, or its values have no defined color.
    """
    with _errors_as_unreadable(), _pillow_guard():
        _check_size(picture)
        return _to_pixels(picture, channels, size)


def read_short_side(file: BinaryIO) -> int:
    """The short side in pixels, according to the header of an open image file.

    Raises:
        Unreadable: the file is empty, not an image, or too large.
    """
    with _open(file) as picture:
        return min(picture.size)


@contextmanager
def _open(file: BinaryIO) -> Iterator[Image.Image]:
    if os.fstat(file.fileno()).st_size == 0:
        raise Unreadable("empty file")
    with (
        _errors_as_unreadable(),
        _pillow_guard(),
        Image.open(file, formats=_FORMATS) as picture,
    ):
        _check_size(picture)
        yield picture


@contextmanager
def _errors_as_unreadable() -> Iterator[None]:
    try:
        yield
    except UnidentifiedImageError:
        raise Unreadable("not an image in a known format (jpg, png, webp, bmp, tiff)") from None
    except Unreadable:
        raise
    except MemoryError:
        raise Unreadable("too large for the memory of this machine") from None
    except Exception as error:  # for a broken file, Pillow can raise almost any exception
        if is_of_the_machine(error):
            raise
        raise Unreadable(f"truncated or broken: {error or type(error).__name__}") from error


def _check_size(picture: Image.Image) -> None:
    width, height = picture.size
    if width * height > _MAX_PIXELS:
        raise Unreadable(f"too large: {width} x {height} pixels")
    if width == 0 or height == 0:
        raise Unreadable(f"no pixels: {width} x {height}")


def _to_pixels(
    picture: Image.Image,
    channels: int,
    size: int,
    exact_size: tuple[float, float] | None = None,
) -> UInt8[np.ndarray, "{channels} {size} {size}"]:
    picture.load()
    # After loading: some formats rotate the picture themselves while loading, and drop the tag.
    transposition = _UPRIGHT.get(_orientation(picture))
    square = resize_and_center_crop(_to_gray_or_rgb(picture), size, exact_size)
    if transposition is not None:
        square = square.transpose(transposition)
    return picture_to_pixels(square, channels)


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # broken metadata does not make the pixels unusable
        return 1


def _to_gray_or_rgb(picture: Image.Image) -> Image.Image:
    """A picture of any mode -> mode L or RGB, with transparency on white."""
    mode = picture.mode
    if mode.startswith("I;16") or mode in ("I", "F"):
        return Image.fromarray(_numbers_to_uint8(np.asarray(picture)))
    if picture.has_transparency_data:
        if mode == "La":
            picture = picture.convert("LA")
        transparent = picture.convert("RGBA")
        white = Image.new("RGBA", transparent.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, transparent).convert("RGB")
    if mode in ("1", "L"):
        return picture.convert("L")
    if mode == "RGB":
        return picture
    try:
        return picture.convert("RGB")
    except ValueError:
        raise Unreadable(f"color mode {mode} cannot be converted to RGB") from None


def _numbers_to_uint8(values: np.ndarray) -> UInt8[np.ndarray, "height width"]:
    """Floating-point values from 0 to 1, or integers from 0 to 65535."""
    if values.dtype.kind == "f":
        low, high = float(values.min()), float(values.max())
        # This comparison is also false for NaN, which must not pass.
        if not (low >= 0 and high <= 1):
            raise Unreadable(f"floating-point values from {low:g} to {high:g}, not from 0 to 1")
        return np.asarray(np.rint(values * 255), dtype=np.uint8)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise Unreadable(f"integer values from {low} to {high}, not from 0 to 65535")
    return to_uint8(values)


_pillow_lock = threading.Lock()
_threads_in_pillow = 0
_pillow_pixel_limit: int | None = None
_filters_at_entry: list[Any] = []
_IGNORE_PILLOW_WARNINGS = ("ignore", None, Warning, re.compile(r"PIL\b"), 0)


@contextmanager
def _pillow_guard() -> Iterator[None]:
    """Silence Pillow's warnings and lift its pixel limit, safely in several threads.

    Pillow's limit raises an error before the size of the picture is known; `_check_size` replaces
    it. `warnings.catch_warnings` replaces a global list, so with threads the exit of one undoes the
    entry of another. Therefore the first thread to enter adds one filter, and the last one to leave
    removes it.
    """
    global _threads_in_pillow, _pillow_pixel_limit, _filters_at_entry
    with _pillow_lock:
        _threads_in_pillow += 1
        if _threads_in_pillow == 1:
            _pillow_pixel_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            _filters_at_entry = cast(list[Any], warnings.filters)
            _filters_at_entry.insert(0, _IGNORE_PILLOW_WARNINGS)
    try:
        yield
    finally:
        with _pillow_lock:
            _threads_in_pillow -= 1
            if _threads_in_pillow == 0:
                if Image.MAX_IMAGE_PIXELS is None:
                    Image.MAX_IMAGE_PIXELS = _pillow_pixel_limit
                # Other code may have replaced the list by a copy in the meantime (catch_warnings).
                for filters in (_filters_at_entry, cast(list[Any], warnings.filters)):
                    with suppress(ValueError):
                        filters.remove(_IGNORE_PILLOW_WARNINGS)
