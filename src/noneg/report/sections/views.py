"""What the network was shown: some images, and the views of them in the first epochs."""

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
import torch

from noneg.errors import NonegError
from noneg.images import Images
from noneg.images.source import evenly_spaced
from noneg.report.html import Section
from noneg.report.pictures import Atlas, make_atlas
from noneg.views import describe_sizes
from noneg.views.policy import resolve_policy
from noneg.views.preview import views_of

_IMAGES = 6
_EPOCHS = 2


def views_section(images: Images, settings: Mapping[str, Any]) -> tuple[Section, Atlas]:
    """Some images, and the views of them that the network saw in its first two epochs.

    Args:
        images: of the run.
        settings: of the run, from config.yaml.

    Raises:
        NonegError: a setting that the views depend on is missing or impossible.
    """
    size, seed = _whole(settings, "size"), _whole(settings, "seed")
    if settings.get("epochs") is not None:
        epochs = _whole(settings, "epochs")
    else:
        # The last epoch of a run may be begun only.
        shown = _whole(settings, "steps") * _whole(settings, "batch_size")
        epochs = -(-shown // len(images.pixels))
    first, num_views, view_size = (
        _whole(settings, name) if settings.get(name) is not None else None
        for name in ("first_epoch", "num_views", "view_size")
    )
    policy = resolve_policy(settings.get("views"), size, num_views, view_size)
    chosen = np.array(evenly_spaced(len(images.pixels), _IMAGES))
    pixels = torch.from_numpy(np.ascontiguousarray(images.pixels[chosen]))
    views = views_of(
        pixels,
        torch.from_numpy(chosen),
        policy,
        size=size,
        seed=seed,
        epochs=range(first or 0, (first or 0) + min(_EPOCHS, epochs)),
    )
    columns = {"image": pixels, **views}
    atlas = make_atlas("view", np.concatenate([_tiles(column) for column in columns.values()]))
    head = "".join(f'<th scope="col">{title}</th>' for title in columns)
    rows = []
    for row in range(len(chosen)):
        cells = "".join(
            f"<td>{atlas.picture(column * len(chosen) + row, title)}</td>"
            for column, title in enumerate(columns)
        )
        rows.append(f"<tr>{cells}</tr>")
    name = settings["views"] if isinstance(settings["views"], str) else "your own"
    introduction = (
        f"What the network was shown: the views <b>{escape(name)}</b>, "
        f"of {describe_sizes(policy, size)} px. It learns to "
        "ignore whatever differs between the views of one image."
    )
    body = (
        f'<div class="scroll"><table class="views"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
    return Section("views", "Views", introduction, body), atlas


def _whole(settings: Mapping[str, Any], name: str) -> int:
    value = settings.get(name)
    if not isinstance(value, int) or value < 0:
        raise NonegError(f"config.yaml needs a whole number for {name}, not {value!r}")
    return value


def _tiles(pixels: torch.Tensor) -> np.ndarray:
    """uint8 [N, C, S, S] -> [N, C, 64, 64]; small images are enlarged pixel by pixel."""
    side = pixels.shape[-1]
    scale = max(1, 64 // side)
    enlarged = pixels.repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)
    if enlarged.shape[-1] != 64:
        enlarged = (
            torch.nn.functional.interpolate(
                enlarged.float(), size=(64, 64), mode="bilinear", antialias=True
            )
            .round()
            .to(torch.uint8)
        )
    tiles: np.ndarray = enlarged.numpy()
    return tiles
