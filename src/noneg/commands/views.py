"""`noneg views`: a picture of images, each with its views."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from noneg.errors import NonegError
from noneg.files import whole_or_not_at_all
from noneg.images import ImageSource, find_source
from noneg.images.source import evenly_spaced
from noneg.images.threads import read_readable
from noneg.training.config import TrainConfig, make_config
from noneg.training.plan import Plan, complete, stored_size
from noneg.views import describe_sizes
from noneg.views.preview import views_of

_GAP = 4
# Small views are shown enlarged, pixel by pixel.
_SHOWN = 96
_TITLE = 16


def write_sheet(path: Path, config: TrainConfig, *, images: int = 8, epochs: int = 2) -> str:
    """Write a PNG: one row for each image, with the image first, then its views in each epoch.

    These are the views of a run with this config and seed, if the run leaves out no image. Images
    with neither one nor three channels are shown by their first channel, in gray.

    Args:
        path: the PNG file; replaced when it is complete.
        config: the config of the run.
        images: number of rows, spread over the data set.
        epochs: show the views of this many epochs.

    Returns:
        A sentence that describes the sheet.

    Raises:
        NonegError: no image can be read, or the file cannot be written.
    """
    if images < 1 or epochs < 1:
        raise NonegError(f"a sheet of {images} images in {epochs} epochs is empty: give at least 1")
    source = find_source(config.data)
    plan = complete(config, source)
    index, pixels = _read_some(source, images, plan)
    views = views_of(
        pixels, index, plan.policy, size=plan.size, seed=config.seed, epochs=range(epochs)
    )
    columns = {"image": pixels, **views}
    sheet = _paste([_shown(column) for column in columns.values()], list(columns))
    with whole_or_not_at_all(path) as unfinished:
        sheet.save(unfinished, format="PNG")
    name = config.views if isinstance(config.views, str) else "own"
    return (
        f"{len(index)} images of the {source.description}, {len(plan.policy)} views each "
        f"({name}, {describe_sizes(plan.policy, plan.size)} px), drawn {epochs} times"
    )


def _read_some(source: ImageSource, count: int, plan: Plan) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices and pixels of `count` images, spread over the data set; fewer if few are readable."""
    side = stored_size(plan.size, source.natural_size())
    # Twice as many, in case some are unreadable.
    read = read_readable(
        source,
        evenly_spaced(len(source), 2 * count),
        lambda number: (number, source.read(number, plan.channels, side)),
    )
    chosen = [read[position] for position in evenly_spaced(len(read), count)]
    index, pixels = zip(*chosen, strict=True)
    return torch.tensor(index), torch.from_numpy(np.stack(pixels))


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
    """Write the sheet, and print what it shows; settings that are None come from the recipe.

    Raises:
        NonegError: see `write_sheet`; or a setting cannot be used.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    config = make_config(data, **given)
    print(f"{write_sheet(out, config, images=images, epochs=epochs)}: {out}")
