"""Crop, resize, flip and blur: every output row is a weighted sum of a few input rows.

A separable operation is applied to the rows, then to the columns. Along one axis an output needs a
few inputs, its taps: two for an enlarged crop, three for 256 -> 224 px. `embedding_bag` computes
such sums in batches, on CPUs and GPUs. A dense matrix would mostly multiply by zero.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from noneg.views.policy import Interpolation

# Half the width of each filter, in pixels of the coarser grid, input or output.
_SUPPORT = {"bilinear": 1, "bicubic": 2}


@dataclass(frozen=True)
class Taps:
    """For each output of each image along one axis: the inputs that are summed, the weights."""

    index: Int[Tensor, "batch outputs taps"]
    weight: Float[Tensor, "batch outputs taps"]

    def __getitem__(self, images: slice) -> "Taps":
        """The taps of some of the images."""
        return Taps(self.index[images], self.weight[images])


@dataclass(frozen=True)
class RowTaps:
    """Taps of every channel; `index` counts the rows of a table that holds several images."""

    index: Int[Tensor, "batch channels outputs taps"]
    weight: Float[Tensor, "batch channels outputs taps"]

    def __getitem__(self, images: slice) -> "RowTaps":
        """The taps of some of the images."""
        return RowTaps(self.index[images], self.weight[images])


def crop_taps(
    start: Float[Tensor, "batch"],
    length: Float[Tensor, "batch"],
    flip: Bool[Tensor, "batch"],
    source: int,
    target: int,
    interpolation: Interpolation,
) -> Taps:
    """Antialiased resampling of pixels [start, start + length) to `target` pixels.

    The same as torchvision's `resized_crop(antialias=True)`: the filter is as wide as an output
    pixel, but at least as wide as an input pixel; it is cut off at the border of the box and
    normalized. `source` is an upper bound of the length; it sets the number of taps.
    """
    support = _SUPPORT[interpolation]
    # An open interval of the filter's width contains at most this many whole numbers.
    count = math.ceil(2 * support * max(source / target, 1))
    device = start.device
    scale = length / target
    width = scale.clamp(min=1)[:, None]
    # If flipped, the outputs go from the end of the box to its start.
    step = torch.where(flip, -scale, scale)
    end = start + length
    first_center = torch.where(flip, end, start) - 0.5 + step / 2
    center = torch.addcmul(
        first_center[:, None], step[:, None], torch.arange(target, device=device)
    )
    first = torch.maximum((center - support * width).ceil_(), start[:, None])
    # During the arithmetic, taps are the first dimension: a last dimension of few numbers is slow.
    position = first + torch.arange(count, device=device)[:, None, None]
    last = (end - 1)[:, None]
    distance = (position - center).abs_().div_(width)
    weight = resampling_filter(distance, interpolation).mul_(position <= last)
    weight /= weight.sum(dim=0)
    index = torch.minimum(position, last, out=position).permute(1, 2, 0)
    return Taps(index.contiguous().to(torch.int32), weight.permute(1, 2, 0))


def resampling_filter(
    distance: Float[Tensor, "*any"], interpolation: Interpolation
) -> Float[Tensor, "*any"]:
    """The weight at a distance from the center: triangle, or Keys' cubic with a = -1/2.

    Args:
        distance: in widths of the filter, 0 or more; it may be overwritten.
        interpolation: the filter.
    """
    if interpolation == "bilinear":
        return distance.neg_().add_(1).clamp_(min=0)
    near = (1.5 * distance - 2.5) * distance.square() + 1
    far = ((2.5 - 0.5 * distance) * distance - 4) * distance + 2
    return torch.where(distance <= 1, near, far) * (distance < 2)


def blur_taps(sigma: Float[Tensor, "batch"], size: int, largest_sigma: float) -> Taps:
    """A Gaussian blur of `size` pixels with mirrored borders, cut off at 3 `largest_sigma`."""
    radius = min(max(1, math.ceil(3 * largest_sigma)), size - 1)
    offset = torch.arange(-radius, radius + 1, device=sigma.device)
    weight = torch.softmax(-0.5 * (offset / sigma[:, None]) ** 2, dim=1)
    position = (torch.arange(size, device=sigma.device)[:, None] + offset).abs()
    position = torch.minimum(position, 2 * (size - 1) - position)
    return Taps(position.expand(len(sigma), -1, -1), weight[:, None].expand(-1, size, -1))


def taps_of_rows(taps: Taps, channels: int, inputs: int, places: Int[Tensor, "batch"]) -> RowTaps:
    """Taps whose indices are rows of a table; `places` are the positions of the images in it."""
    batch, outputs, count = taps.weight.shape
    first = (places * (channels * inputs))[:, None] + inputs * torch.arange(
        channels, device=places.device
    )
    index = taps.index[:, None] + first.to(taps.index.dtype)[:, :, None, None]
    weight = taps.weight[:, None].expand(batch, channels, outputs, count).contiguous()
    return RowTaps(index, weight)


def sum_rows(
    planes: Float[Tensor, "places channels inputs across"], taps: RowTaps
) -> Float[Tensor, "batch channels outputs across"]:
    """Weighted sums of rows, for each image of the taps."""
    batch, channels, outputs, count = taps.index.shape
    rows = planes.view(-1, planes.shape[3])
    index, weight = taps.index.view(-1, count), taps.weight.view(-1, count)
    if planes.device.type in ("cpu", "cuda"):
        summed = functional.embedding_bag(index, rows, mode="sum", per_sample_weights=weight)
    else:
        summed = gather_and_sum(rows, index, weight)
    return summed.view(batch, channels, outputs, -1)


def gather_and_sum(
    rows: Float[Tensor, "rows across"],
    index: Int[Tensor, "sums taps"],
    weight: Float[Tensor, "sums taps"],
) -> Float[Tensor, "sums across"]:
    """The same as a weighted `embedding_bag`, for devices that do not have it."""
    summed = rows[index[:, 0]] * weight[:, :1]
    for tap in range(1, index.shape[1]):
        summed.addcmul_(rows[index[:, tap]], weight[:, tap : tap + 1])
    return summed
