"""A picture of what the network will see: images, and beside each the views drawn of it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image, ImageDraw, ImageFont

from noneg.errors import NonegError
from noneg.files import whole_or_not_at_all
from noneg.images import ImageSource, find_source
from noneg.images.source import Unreadable, spread
from noneg.training.build import complete, stored_size
from noneg.training.config import TrainConfig, make_config
from noneg.views import draw_views, view_sizes

_GAP = 4
# Small views are shown enlarged, pixel by pixel.
_SHOWN = 96
_TITLE = 16


def write_sheet(path: Path, config: TrainConfig, *, images: int = 8, epochs: int = 2) -> str:
    """Write a PNG: a row for each image, the image first, then its views in the first epochs.

    The views are those of a run with this config, seed included, where no image is left out.
    Of images with neither one nor three channels the first is shown, in gray.

    Args:
        path: the PNG file; replaced when it is complete.
        config: of the run; what it leaves open is decided by the images.
        images: rows, spread over the set.
        epochs: how often each image's views are drawn.

    Returns:
        What the sheet shows, in a sentence.

    Raises:
        NonegError: no image can be read, or the file cannot be written.
    """
    if images < 1 or epochs < 1:
        raise NonegError(f"a sheet of {images} images in {epochs} epochs is empty: give at least 1")
    source = find_source(config.data)
    config = complete(config, source)
    assert config.channels is not None
    assert config.size is not None
    index, pixels = _read_some(source, images, config)
    policy = config.policy(config.size)
    columns = {"image": pixels, **views_of(pixels, index, config, epochs=epochs)}
    sheet = _paste([_shown(column) for column in columns.values()], list(columns))
    try:
        with whole_or_not_at_all(path) as unfinished:
            sheet.save(unfinished, format="PNG")
    except OSError as error:
        raise NonegError(
            f"{path} cannot be written ({error.strerror or error}): give a file in a folder that "
            "exists and has room"
        ) from error
    sizes = sorted(set(view_sizes(policy, config.size)), reverse=True)
    name = config.views if isinstance(config.views, str) else "own"
    return (
        f"{len(index)} images of the {source.description}, {len(policy)} views each "
        f"({name}, {' and '.join(str(size) for size in sizes)} px), drawn {epochs} times"
    )


def views_of(
    pixels: UInt8[torch.Tensor, "images channels stored stored"],
    index: Int64[torch.Tensor, "images"],
    config: TrainConfig,
    *,
    epochs: int,
) -> dict[str, UInt8[torch.Tensor, "images channels size size"]]:
    """The views that a run with this complete config draws of some images, before normalization.

    Args:
        pixels: uint8 [N, C, S, S].
        index: which images of the set these are [N].
        config: of the run, with its size and channels.
        epochs: the first so many.

    Returns:
        uint8 [N, C, size, size] for each "epoch 1, view 1" ..., in that order.
    """
    assert config.channels is not None
    assert config.size is not None
    columns = {}
    for epoch in range(epochs):
        views = draw_views(
            pixels,
            index,
            config.policy(config.size),
            size=config.size,
            seed=config.seed,
            epoch=epoch,
            mean=(0.0,) * config.channels,
            std=(1.0,) * config.channels,
        )
        for number, view in enumerate(views, 1):
            columns[f"epoch {epoch + 1}, view {number}"] = (255 * view).round().to(torch.uint8)
    return columns


def _read_some(
    source: ImageSource, count: int, config: TrainConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    assert config.channels is not None
    assert config.size is not None
    side = stored_size(config.size, source.natural_size())
    index, pixels, reason = [], [], ""
    # Twice as many, so that unreadable ones leave enough.
    for number in spread(len(source), 2 * count):
        try:
            pixels.append(source.read(number, config.channels, side))
            index.append(number)
        except Unreadable as error:
            reason = reason or f"{source.name(number)}: {error}"
    if not index:
        raise NonegError(
            f"None of the images looked at in the {source.description} can be read ({reason})"
        )
    chosen = spread(len(index), count)
    return (
        torch.tensor([index[number] for number in chosen]),
        torch.from_numpy(np.stack([pixels[number] for number in chosen])),
    )


def _shown(pixels: torch.Tensor) -> list[Image.Image]:
    """uint8 [N, C, S, S] -> N pictures of at least `_SHOWN` pixels."""
    if pixels.shape[1] != 3:
        pixels = pixels[:, :1].expand(-1, 3, -1, -1)
    pictures = []
    for each in pixels.permute(0, 2, 3, 1).contiguous().numpy():
        colors: UInt8[np.ndarray, "side side 3"] = each
        scale = max(1, round(_SHOWN / len(colors)))
        pictures.append(
            Image.fromarray(colors).resize((scale * len(colors),) * 2, Image.Resampling.NEAREST)
        )
    return pictures


def _paste(columns: list[list[Image.Image]], titles: list[str]) -> Image.Image:
    font = ImageFont.load_default()
    widths = [
        max(column[0].width, round(font.getlength(title)))
        for column, title in zip(columns, titles, strict=True)
    ]
    row_height = max(column[0].height for column in columns)
    height = _TITLE + len(columns[0]) * (row_height + _GAP) + _GAP
    sheet = Image.new("RGB", (sum(widths) + _GAP * (len(widths) + 1), height), "white")
    pen = ImageDraw.Draw(sheet)
    left = _GAP
    for column, title, width in zip(columns, titles, widths, strict=True):
        pen.text((left, 2), title, fill="black", font=font)
        for row, picture in enumerate(column):
            sheet.paste(picture, (left, _TITLE + _GAP + row * (row_height + _GAP)))
        left += width + _GAP
    return sheet


def run(*, data: str, out: Path, images: int, epochs: int, **settings: Any) -> None:
    """Write the sheet, and print what it shows; settings that are None are the recipe's.

    Raises:
        NonegError: see `write_sheet`; or a setting cannot be used.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    config = make_config(data, **given)
    print(f"{write_sheet(out, config, images=images, epochs=epochs)}: {out}")
