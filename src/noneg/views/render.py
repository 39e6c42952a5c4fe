"""From uint8 images and their draws to normalized views.

Where this differs from torchvision's operations one after the other: values are clamped to [0, 1]
once, after the color operations, not between them; hue is a rotation about the gray axis, not a
shift in HSV; contrast takes its mean after the blur (which keeps means but for the border). So the
blur can come before the colors, and all color operations together are one matrix an image.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from noneg.randomness import hash_key
from noneg.views.color import color_matrices
from noneg.views.draw import Draw, Numbers, Switches, draw
from noneg.views.policy import Policy, View
from noneg.views.resample import RowTaps, blur_taps, crop_taps, sum_rows, taps_of_rows

# Few images at a time, so that what passes between two operations stays in a core's cache and the
# allocator hands out the same memory again: fresh pages cost more than the arithmetic.
_WORKING_BYTES = {"cpu": 3 * 2**19, "cuda": 2**28}


def view_sizes(policy: Policy, size: int) -> tuple[int, ...]:
    """Side of each view in pixels; `size` where a `View` does not name its own."""
    return tuple(view.size or size for view in policy)


def draw_views(
    images: UInt8[Tensor, "batch channels height width"],
    index: Int[Tensor, "batch"],
    policy: Policy,
    *,
    size: int,
    seed: int,
    epoch: int,
    mean: Sequence[float],
    std: Sequence[float],
    out: Sequence[Tensor] | None = None,
) -> tuple[Float[Tensor, "batch channels _ _"], ...]:
    """One random view of every image for each entry of the policy, on the images' device.

    Args:
        images: uint8 [batch, channels, height, width].
        index: int64 [batch], on the CPU, each image's number in its set. With seed, epoch and the
            view's place in the policy it decides the draw; nothing else does.
        policy: one `View` for each view.
        size: side of the views in pixels, where a `View` does not name its own.
        seed: of the run.
        epoch: how often this image has been seen before.
        mean: of each channel, on pixels in [0, 1], subtracted from the views.
        std: of each channel, which the views are divided by.
        out: the views of an earlier call, to be overwritten; new tensors by default.

    Returns:
        For each view float32 [batch, channels, size, size], channels-last in memory.
    """
    batch, channels, height, width = images.shape
    numbers = index.cpu().numpy()
    views = []
    for number, (view, side) in enumerate(zip(policy, view_sizes(policy, size), strict=True)):
        parameters = draw(view, hash_key(seed, epoch, number), numbers, channels, height, width)
        shape = (batch, channels, side, side)
        if out is not None and (out[number].shape, out[number].device) == (shape, images.device):
            rendered = out[number]
        else:
            rendered = torch.empty(shape, device=images.device, memory_format=torch.channels_last)
        render(images, parameters, view, mean=mean, std=std, out=rendered)
        views.append(rendered)
    return tuple(views)


def render(
    images: UInt8[Tensor, "batch channels height width"]
    | Float[Tensor, "batch channels height width"],
    parameters: Draw,
    view: View,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    out: Float[Tensor, "batch channels size size"],
) -> None:
    """Apply one draw to images, a few at a time.

    Args:
        images: gray levels in [0, 255], uint8 or float32.
        parameters: the draw.
        view: what it was drawn from; decides the filter and the blur's reach.
        mean: of each channel, on pixels in [0, 1].
        std: of each channel.
        out: float32, is filled with (view - mean) / std, the view in [0, 1].
    """
    batch, channels, height, width = images.shape
    size = out.shape[-1]
    at_once = min(batch, _images_at_once(channels, height * width, size * size, images.device))
    rows, columns = _crop(parameters, view, height, width, size, channels, at_once, images.device)
    A, D, black, white = _colors(parameters, mean, std, images.device)
    bounds = list(zip(black.flatten().tolist(), white.flatten().tolist(), strict=True))
    black_and_white = (black + white)[:, :, None]

    table = _padded(at_once, channels, height, width, images.device)
    for start in range(0, batch, at_once):
        chunk = slice(start, min(start + at_once, batch))
        count = chunk.stop - chunk.start
        blur = _drawn_blur(parameters.sigma[chunk], view, channels, size, images.device)
        table[:count, :, :, :width] = images[chunk]
        planes = _blur(sum_rows(table[:count], rows[chunk]), blur)
        planes = planes[..., :width].transpose(2, 3).contiguous()
        planes = _blur(sum_rows(planes, columns[chunk]), blur)
        # From here on, the columns are the rows of `planes`.

        colors = planes.flatten(2)
        average = colors.mean(dim=2, keepdim=True)
        colors = torch.baddbmm(torch.baddbmm(black, D[chunk], average), A[chunk], colors)
        planes = colors.view_as(planes)
        for which in _drawn(parameters.solarize[chunk], images.device):
            # A value above the middle is the one that its inverse lies below; what is beyond white
            # goes beyond black, so that clamping can wait.
            chosen = planes[which]
            planes[which] = torch.minimum(chosen, black_and_white - chosen)
        for which in _drawn(parameters.transpose[chunk], images.device):
            planes[which] = planes[which].transpose(2, 3)
        for channel, (lowest, highest) in enumerate(bounds):
            plane = planes[:, channel].transpose(1, 2)
            torch.clamp(plane, lowest, highest, out=out[chunk, channel])


def _images_at_once(channels: int, before: int, after: int, device: torch.device) -> int:
    budget = _WORKING_BYTES.get(device.type, _WORKING_BYTES["cuda"])
    return max(1, budget // (4 * channels * max(before, after)))


def _padded(count: int, channels: int, height: int, width: int, device: torch.device) -> Tensor:
    # Rows a power of two apart share few places in a cache, which transposing would thrash. What
    # is in the padding is summed like the rest and left behind.
    padding = 16 if width % 64 == 0 else 0
    return torch.empty(count, channels, height, width + padding, device=device)


def _crop(
    parameters: Draw,
    view: View,
    height: int,
    width: int,
    size: int,
    channels: int,
    at_once: int,
    device: torch.device,
) -> tuple[RowTaps, RowTaps]:
    # Rows and columns in one go: they are treated alike.
    start = torch.from_numpy(np.concatenate([parameters.top, parameters.left])).to(device)
    length = torch.from_numpy(np.concatenate([parameters.height, parameters.width])).to(device)
    flip = torch.from_numpy(np.concatenate([parameters.vertical_flip, parameters.flip])).to(device)
    taps = crop_taps(start, length, flip, max(height, width), size, view.interpolation)
    batch = len(parameters.top)
    places = torch.arange(batch, device=device) % at_once
    return (
        taps_of_rows(taps[:batch], channels, height, places),
        taps_of_rows(taps[batch:], channels, width, places),
    )


def _colors(
    parameters: Draw, mean: Sequence[float], std: Sequence[float], device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """From gray levels to normalized colors, and what black and white become."""
    center = np.array(mean, dtype=np.float32)[:, None]
    spread = np.array(std, dtype=np.float32)[:, None]
    A, D = color_matrices(parameters, len(mean))
    A /= 255 * spread
    D /= 255 * spread
    black, white = -center / spread, (1 - center) / spread
    on_device = [torch.from_numpy(each).to(device) for each in (A, D, black, white)]
    return on_device[0], on_device[1], on_device[2], on_device[3]


def _drawn(happens: Switches, device: torch.device) -> list[Tensor]:
    """The images that an operation was drawn for, if any."""
    which = np.flatnonzero(happens)
    return [torch.from_numpy(which).to(device)] if len(which) else []


def _drawn_blur(
    sigma: Numbers, view: View, channels: int, size: int, device: torch.device
) -> tuple[Tensor, RowTaps] | None:
    """Which images of a chunk are blurred, and how; along rows and columns alike."""
    if size == 1:
        return None
    for which in _drawn(sigma > 0, device):
        drawn = torch.from_numpy(sigma[sigma > 0]).to(device)
        taps = blur_taps(drawn, size, view.blur_sigma[1])
        return which, taps_of_rows(taps, channels, size, which)
    return None


def _blur(
    planes: Float[Tensor, "batch channels size across"], drawn: tuple[Tensor, RowTaps] | None
) -> Float[Tensor, "batch channels size across"]:
    """Blur along the rows, where it was drawn."""
    if drawn is None:
        return planes
    which, taps = drawn
    blurred = sum_rows(planes, taps)
    if len(which) == len(planes):
        return blurred
    planes[which] = blurred
    return planes
