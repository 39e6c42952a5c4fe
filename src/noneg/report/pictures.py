"""The pictures of a page in one file: an atlas of tiles, of which CSS shows one at a time."""

import base64
import io
import math
from dataclasses import dataclass
from html import escape
from typing import final

import numpy as np
from jaxtyping import UInt8
from PIL import Image

MOST_BYTES = 4_200_000
"""The largest size of one atlas; base64 adds a third."""

_LARGEST = 64
# Smaller pictures are shown enlarged, pixel by pixel.
_SHARP_BELOW = 49


@final
@dataclass(frozen=True)
class Atlas:
    """Square tiles in rows.

    Attributes:
        name: the CSS class.
        data: a WebP or JPEG file.
        kind: "webp" or "jpeg".
        tile: side of a tile in the file, in pixels.
        shown: side of a tile on the page, in CSS pixels.
        columns: how many tiles are in a row.
        count: how many tiles there are.
    """

    name: str
    data: bytes
    kind: str
    tile: int
    shown: int
    columns: int
    count: int

    def css(self) -> str:
        """The rules of the class; `--s` is the side of a picture on the page."""
        rows = math.ceil(self.count / self.columns)
        sharp = "image-rendering:pixelated;" if self.tile < _SHARP_BELOW else ""
        return (
            f".{self.name}{{--s:{self.shown}px;width:var(--s);height:var(--s);"
            f"background-size:calc({self.columns}*var(--s)) calc({rows}*var(--s));"
            "background-position:calc(var(--x)*-1*var(--s)) calc(var(--y)*-1*var(--s));"
            f"background-image:url(data:image/{self.kind};base64,"
            f"{base64.b64encode(self.data).decode()});{sharp}}}"
        )

    def picture(self, index: int, label: str) -> str:
        """An element that shows one tile, with a label for screen readers."""
        y, x = divmod(index, self.columns)
        text = escape(label)
        return (
            f'<span class="picture {self.name}" style="--x:{x};--y:{y}" role="img" '
            f'aria-label="{text}" title="{text}"></span>'
        )


def file_name(name: str) -> str:
    """The caption of a picture: the end of a long name, which says more than its beginning."""
    short = name if len(name) <= 28 else f"\N{HORIZONTAL ELLIPSIS}{name[-27:]}"
    return f'<small class="name">{escape(short)}</small>'


def make_atlas(
    name: str,
    pixels: UInt8[np.ndarray, "images channels side side"],
    *,
    most_bytes: int = MOST_BYTES,
) -> Atlas:
    """The largest tiles, and the best quality, that fit into `most_bytes`.

    Images with neither one nor three channels are shown by their first channel, in gray.
    """
    count, _, side, _ = pixels.shape
    largest = min(side, _LARGEST if count <= 2_000 else 48)
    sides = [largest, *(each for each in (40, 32, 24, 16) if each < largest)]
    for tile in sides:
        sheet = _sheet(pixels, tile)
        for quality in (80, 60, 35):
            kind, data = _encoded(sheet, quality)
            # Far too large for any quality.
            if len(data) <= most_bytes or len(data) > 1.6 * most_bytes:
                break
        if len(data) > most_bytes:
            continue
        break
    shown = tile * max(1, round(64 / tile))
    return Atlas(name, data, kind, tile, shown, sheet.width // tile, count)


def _sheet(pixels: UInt8[np.ndarray, "images channels side side"], tile: int) -> Image.Image:
    count = len(pixels)
    columns = max(1, math.ceil(math.sqrt(count)))
    rows = max(1, math.ceil(count / columns))
    sheet = np.zeros((rows * tile, columns * tile, 3), dtype=np.uint8)
    for number in range(count):
        image = pixels[number] if pixels.shape[1] == 3 else np.repeat(pixels[number, :1], 3, axis=0)
        colors = image.transpose(1, 2, 0)
        if pixels.shape[-1] != tile:
            picture = Image.fromarray(np.ascontiguousarray(colors))
            colors = np.asarray(picture.resize((tile, tile), Image.Resampling.LANCZOS))
        top, left = (tile * each for each in divmod(number, columns))
        sheet[top : top + tile, left : left + tile] = colors
    return Image.fromarray(sheet)


def _encoded(sheet: Image.Image, quality: int) -> tuple[str, bytes]:
    file = io.BytesIO()
    # Pillow may be built without WebP, and a WebP's side is at most 16,383.
    kind = "webp" if "WEBP" in Image.SAVE and max(sheet.size) < 16_384 else "jpeg"
    method = {"method": 2} if kind == "webp" else {}
    sheet.save(file, format=kind, quality=quality, **method)
    return kind, file.getvalue()
