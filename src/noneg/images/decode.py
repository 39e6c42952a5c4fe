"""An encoded image -> the pixels a person would see."""

import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, cast

import numpy as np
from jaxtyping import UInt8

# Imported here because Pillow otherwise finds its plugins on first use, in whichever thread.
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

from noneg.images.resize import fit, picture_to_pixels, sixteen_to_eight_bit
from noneg.images.source import Unreadable

# Pillow knows formats that run other programs (EPS) whatever the file's name says; these do not.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_MOST_PIXELS = 200_000_000
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

_pillow_lock = threading.Lock()
_decoding = 0
_pillow_limit: int | None = None
_pillow_filters: list[Any] = []
_PILLOW_WARNINGS = ("ignore", None, Warning, re.compile(r"PIL\b"), 0)


def decode(
    file: BinaryIO, channels: int, size: int
) -> UInt8[np.ndarray, "{channels} {size} {size}"]:
    """Decode an open file; channels is 1 or 3.

    Raises:
        Unreadable: empty, no image, broken, too large, or without a defined look.
    """
    if os.fstat(file.fileno()).st_size == 0:
        raise Unreadable("empty file")
    try:
        with pillow_without_warnings(), Image.open(file, formats=_FORMATS) as picture:
            _check_size(picture)
            # Twice the size leaves the antialiasing filter enough to work on: visually the same.
            drafted = picture.draft(None, (2 * size, 2 * size))
            # A reduced JPEG is rounded up to whole pixels; the fraction counts in a small picture.
            extent = drafted and drafted[1][2:]
            return picture_to_pixels(_square(picture, size, extent), channels, size)
    except UnidentifiedImageError:
        raise Unreadable("not an image in a known format (jpg, png, webp, bmp, tiff)") from None
    except Unreadable:
        raise
    except MemoryError:
        raise Unreadable("too large for the memory of this machine") from None
    except Exception as error:  # a broken file makes Pillow raise nearly anything
        raise Unreadable(f"truncated or broken: {error or type(error).__name__}") from error


def decode_picture(
    picture: Image.Image, channels: int, size: int
) -> UInt8[np.ndarray, "{channels} {size} {size}"]:
    """The same for a picture that Pillow has opened already.

    Raises:
        Unreadable: broken, too large, or without a defined look.
    """
    try:
        with pillow_without_warnings():
            _check_size(picture)
            return picture_to_pixels(_square(picture, size), channels, size)
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(f"truncated or broken: {error or type(error).__name__}") from error


def short_side(file: BinaryIO) -> int | None:
    """The short side in pixels according to the header; None where there is no header to read."""
    try:
        with pillow_without_warnings(), Image.open(file, formats=_FORMATS) as picture:
            return min(picture.size)
    except Exception:
        return None


def _square(
    picture: Image.Image, size: int, extent: tuple[float, float] | None = None
) -> Image.Image:
    """A picture of any mode -> an upright square, L or RGB, transparency on white."""
    picture.load()
    # After load: some formats turn the picture themselves while loading, and then drop the tag.
    upright = _UPRIGHT.get(_orientation(picture))
    square = fit(_flat(picture), size, extent)
    return square if upright is None else square.transpose(upright)


def _flat(picture: Image.Image) -> Image.Image:
    mode = picture.mode
    if mode.startswith("I;16") or mode in ("I", "F"):
        return Image.fromarray(_eight_bit(np.asarray(picture)))
    if picture.has_transparency_data:
        if mode == "La":
            picture = picture.convert("LA")
        seen = picture.convert("RGBA")
        white = Image.new("RGBA", seen.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, seen).convert("RGB")
    if mode in ("1", "L"):
        return picture.convert("L")
    if mode == "RGB":
        return picture
    try:
        return picture.convert("RGB")
    except ValueError:
        raise Unreadable(f"colors of kind {mode} have no conversion to RGB") from None


def _eight_bit(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "f":
        low, high = float(values.min()), float(values.max())
        # The comparison is false for not-a-number, which must not pass.
        if not (low >= 0 and high <= 1):
            raise Unreadable(f"floating-point values from {low:g} to {high:g}, not from 0 to 1")
        return np.asarray(np.rint(values * 255), dtype=np.uint8)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise Unreadable(f"integer values from {low} to {high}, not from 0 to 65535")
    return sixteen_to_eight_bit(values)


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # broken metadata does not make the pixels unusable
        return 1


def _check_size(picture: Image.Image) -> None:
    width, height = picture.size
    if width * height > _MOST_PIXELS:
        raise Unreadable(f"too large: {width} x {height} pixels")
    if width == 0 or height == 0:
        raise Unreadable(f"no pixels: {width} x {height}")


@contextmanager
def pillow_without_warnings() -> Iterator[None]:
    """Silence Pillow's warnings, and lift its pixel limit; we hold a limit of our own.

    `warnings.catch_warnings` swaps a global list, which is wrong in threads: one thread's
    exit undoes another's entry. So the first thread in adds one filter and the last one out
    removes it. Pillow's limit is lifted because it refuses a file before telling how large it is.
    """
    global _decoding, _pillow_limit, _pillow_filters
    with _pillow_lock:
        _decoding += 1
        if _decoding == 1:
            _pillow_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            _pillow_filters = cast(list[Any], warnings.filters)
            _pillow_filters.insert(0, _PILLOW_WARNINGS)
    try:
        yield
    finally:
        with _pillow_lock:
            _decoding -= 1
            if _decoding == 0:
                if Image.MAX_IMAGE_PIXELS is None:
                    Image.MAX_IMAGE_PIXELS = _pillow_limit
                # Somebody's catch_warnings may have put a copy in place of the list meanwhile.
                for filters in (_pillow_filters, cast(list[Any], warnings.filters)):
                    with suppress(ValueError):
                        filters.remove(_PILLOW_WARNINGS)
