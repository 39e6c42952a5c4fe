"""Quality of embeddings without labels: all meters, measured on a network's embeddings of views."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from noneg.diagnostics import METERS, measure
from noneg.evaluation.scores import sample_images
from noneg.images import Images
from noneg.methods.base import Method
from noneg.records.contents import Meters
from noneg.views import Policy, draw_views

IMAGES, FEWEST_IMAGES, VIEWS = 1_000, 200, 4
# Above this side fewer images are measured, because each image costs more.
_SIDE = 64
_CHUNK = 250
# No training reaches this epoch, so the network was not trained on its views.
_EPOCH = 2**40

EmbedByName = Callable[[tuple[Tensor, ...]], Mapping[str, Float[Tensor, "views batch _"]]]


def embed_with(method: Method) -> EmbedByName:
    """The `embed` of `measure_embeddings` for a method: `h` and `z`."""

    def embed(views: tuple[Tensor, ...]) -> Mapping[str, Tensor]:
        e = method.embed(views)
        return {"h": e.h, "z": e.z}

    return embed


def embed_with_backbone(backbone: nn.Module) -> EmbedByName:
    """The `embed` of `measure_embeddings` for a backbone without projector: only `h`."""
    return lambda views: {"h": torch.stack([backbone(view) for view in views])}


@torch.no_grad()
def measure_embeddings(
    module: nn.Module,
    embed: EmbedByName,
    images: Images,
    policy: Policy,
    *,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int = 0,
    most: int | None = None,
    num_views: int = VIEWS,
) -> Meters:
    """All meters of a network's embeddings of views; labels are not used.

    The network is in evaluation mode, as in later use. The views are sampled from the policy, and
    differ from those of training.

    Args:
        module: the network, on any device; its mode is restored.
        embed: views -> {"h": [V, B, D], ...}.
        images: a random choice of them is measured.
        policy: its views are used in turn, until there are `num_views` per image.
        size: side of the views in pixels.
        mean: of each channel, on pixels in [0, 1].
        std: of each channel, on pixels in [0, 1].
        seed: decides the views and the choice of images.
        most: measure at most this many images; default: `images_to_measure`.
        num_views: views per image; LiDAR needs more than two.

    Returns:
        The meters by embedding and name.
    """
    most = images_to_measure(len(images.pixels), size) if most is None else most
    chosen = sample_images(images, most, seed=seed)
    # Only views of the full size: users never embed multi-crop's small views.
    full_size = [view for view in policy if view.size in (None, size)] or list(policy[:1])
    views = tuple(full_size[number % len(full_size)] for number in range(num_views))
    device = next(module.parameters()).device
    was_training = {each: each.training for each in module.modules()}
    module.eval()
    parts: dict[str, list[Tensor]] = {}
    for start in range(0, len(chosen.pixels), _CHUNK):
        pixels = torch.from_numpy(chosen.pixels[start : start + _CHUNK]).to(device)
        # Each view is sampled in another epoch, so equal entries of the policy differ.
        drawn = tuple(
            draw_views(
                pixels,
                torch.arange(start, start + len(pixels)),
                (view,),
                size=size,
                seed=seed,
                epoch=_EPOCH + number,
                mean=mean,
                std=std,
            )[0]
            for number, view in enumerate(views)
        )
        for name, embedding in embed(drawn).items():
            parts.setdefault(name, []).append(embedding.float().cpu())
    for each, training in was_training.items():
        each.training = training
    return {name: measure(torch.cat(blocks, dim=1)) for name, blocks in parts.items()}


def format_meters(trained: Meters, untrained: Meters) -> str:
    """A table with a line per meter: h and z, trained and untrained."""
    columns = [(name, which) for name in trained for which in ("trained", "untrained")]
    values = {"trained": trained, "untrained": untrained}
    rows = [["meter", *(f"{name} {which}" for name, which in columns)]]
    for meter, about in METERS.items():
        cells = [values[which].get(name, {}).get(meter, math.nan) for name, which in columns]
        rows.append([about.title, *(_shown(cell) for cell in cells)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in rows
    )


def _shown(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"


def images_to_measure(count: int, size: int) -> int:
    """How many of `count` images are measured by default, with views of `size` pixels."""
    affordable = round(IMAGES * min(1.0, (_SIDE / size) ** 2))
    return min(count, max(FEWEST_IMAGES, affordable))


def meters_as_dict(
    trained: Meters, untrained: Meters, images: int, start: Meters | None = None
) -> dict[str, object]:
    """Plain values for meters.json; a meter that cannot be measured here is None."""

    def plain(meters: Meters) -> dict[str, dict[str, float | None]]:
        return {
            name: {
                meter: value if math.isfinite(value) else None for meter, value in values.items()
            }
            for name, values in meters.items()
        }

    return {
        "images": images,
        "views": VIEWS,
        "trained": plain(trained),
        "untrained": plain(untrained),
        **({} if start is None else {"start": plain(start)}),
    }
