"""What a network will see: the views of some images, as pictures."""

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from noneg.views.policy import Policy
from noneg.views.render import draw_views


def views_of(
    pixels: UInt8[Tensor, "images channels stored stored"],
    index: Int64[Tensor, "images"],
    policy: Policy,
    *,
    size: int,
    seed: int,
    epochs: range,
) -> dict[str, UInt8[Tensor, "images channels _ _"]]:
    """The views that a run with these settings draws of some images, before normalization.

    Args:
        pixels: uint8 [N, C, S, S].
        index: which images of the set these are [N].
        policy: one `View` for each view.
        size: side in pixels of the views that have no size of their own.
        seed: of the run.
        epochs: which epochs, counted from 0.

    Returns:
        uint8 [N, C, side, side] for each "epoch 1, view 1" ..., in that order.
    """
    channels = pixels.shape[1]
    columns = {}
    for epoch in epochs:
        views = draw_views(
            pixels,
            index,
            policy,
            size=size,
            seed=seed,
            epoch=epoch,
            mean=(0.0,) * channels,
            std=(1.0,) * channels,
        )
        for number, view in enumerate(views, 1):
            columns[f"epoch {epoch + 1}, view {number}"] = (255 * view).round().to(torch.uint8)
    return columns
