"""What happens to a copy of a picture on its way: recompressed, resized, cropped, recolored."""

import io
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image

Pixels = UInt8[np.ndarray, "channels side side"]


def recompress(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """As a JPEG file of quality 30 to 80; each channel by itself unless there are three."""
    quality = int(random.integers(30, 81))
    groups = [pixels] if len(pixels) == 3 else [channel[None] for channel in pixels]
    parts = []
    for group in groups:
        data = io.BytesIO()
        picture = Image.fromarray(group.transpose(1, 2, 0) if len(group) == 3 else group[0])
        picture.save(data, "JPEG", quality=quality)
        with Image.open(data) as read:
            array = np.asarray(read)
        parts.append(array.transpose(2, 0, 1) if len(group) == 3 else array[None])
    return np.ascontiguousarray(np.concatenate(parts))


def resize(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """To 50 to 90 % of its size, and back."""
    side = pixels.shape[1]
    smaller = max(1, round(side * random.uniform(0.5, 0.9)))
    return _resized(_resized(pixels, smaller), side)


def crop(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """A square of 80 to 95 % of the side, anywhere, at the old size."""
    side = pixels.shape[1]
    part = side * random.uniform(0.8, 0.95)
    left, top = random.uniform(0, side - part, size=2)
    return _resized(pixels, side, (left, top, left + part, top + part))


def recolor(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """Brighter or darker by up to a fifth, and with more or less contrast."""
    gain, shift = random.uniform(0.8, 1.2), random.uniform(-25, 25)
    return np.clip(np.rint(pixels * gain + shift), 0, 255).astype(np.uint8)


EDITS: tuple[Callable[[Pixels, np.random.Generator], Pixels], ...] = (
    recompress,
    resize,
    crop,
    recolor,
)


def edited(
    pixels: UInt8[np.ndarray, "images channels side side"], seed: int
) -> UInt8[np.ndarray, "images channels side side"]:
    """Each image after one edit; the edits take turns.

    Args:
        pixels: uint8 [N, C, S, S].
        seed: of the edits' strengths.
    """
    random = np.random.default_rng(seed)
    return np.stack([EDITS[n % len(EDITS)](each, random) for n, each in enumerate(pixels)])


def _resized(
    pixels: UInt8[np.ndarray, "channels _ _"],
    side: int,
    box: tuple[float, float, float, float] | None = None,
) -> UInt8[np.ndarray, "channels {side} {side}"]:
    channels = [
        np.asarray(Image.fromarray(each).resize((side, side), Image.Resampling.BILINEAR, box=box))
        for each in pixels
    ]
    return np.stack(channels)
