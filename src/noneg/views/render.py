"""From uint8 images and the sampled parameters to normalized views.

This differs from applying torchvision's operations one after the other: values are clamped to
[0, 1] once, after the color operations, not between them; hue is a rotation about the gray axis,
not a shift in HSV; contrast uses the mean after the blur (blur only changes means at the border).
So the blur can come before the colors, and all color operations together are one matrix per image.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from noneg.randomness import hash_key
from noneg.views.color import color_matrices
from noneg.views.parameters import Flags, Floats, ViewParameters, sample_parameters
from noneg.views.policy import Policy, View
from noneg.views.resample import RowTaps, blur_taps, crop_taps, sum_rows, taps_of_rows

# Only a few images are processed at once. So intermediate results stay in a core's cache, and the
# allocator reuses the same memory: new pages cost more than the arithmetic.
_WORKING_BYTES = {"cpu": 3 * 2**19, "cuda": 2**28}


def view_sizes(policy: Policy, size: int) -> tuple[int, ...]:
    """Side of each view in pixels; `size` if a `View` does not set its own."""
    return tuple(view.size or size for view in policy)


def describe_sizes(policy: Policy, size: int) -> str:
    """The sides of the views for people, the largest first: "32", or "32 and 16"."""
    return " and ".join(map(str, sorted(set(view_sizes(policy, size)), reverse=True)))


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
        index: int64 [batch], on the CPU, each image's number in its set. The random parameters only
            depend on it, on `seed`, on `epoch` and on the view's position in the policy.
        policy: one `View` per view.
        size: side of the views in pixels, if a `View` does not set its own.
        seed: of the run.
        epoch: how many times the image was seen before.
        mean: of each channel, for pixels in [0, 1]; subtracted from the views.
        std: of each channel, for pixels in [0, 1]; the views are divided by it.
        out: the views of an earlier call, to be overwritten; by default, new tensors.

    Returns:
        For each view float32 [batch, channels, size, size], channels-last in memory.
    """
    batch, channels, height, width = images.shape
    numbers = index.cpu().numpy()
    views = []
    for number, (view, side) in enumerate(zip(policy, view_sizes(policy, size), strict=True)):
        key = hash_key(seed, epoch, number)
        parameters = sample_parameters(view, key, numbers, channels, height, width)
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
    parameters: ViewParameters,
    view: View,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    out: Float[Tensor, "batch channels size size"],
) -> None:
    """Apply sampled parameters to images, a few images at a time.

    Args:
        images: values in [0, 255], uint8 or float32.
        parameters: one view of every image.
        view: the `View` that the parameters were sampled from; sets the filter and the blur's
            radius.
        mean: of each channel, for pixels in [0, 1].
        std: of each channel, for pixels in [0, 1].
        out: float32; filled with (view - mean) / std, the view in [0, 1].
    """
    batch, channels, height, width = images.shape
    size = out.shape[-1]
    at_once = min(batch, _images_at_once(channels, height * width, size * size, images.device))
    rows, columns = _crop(parameters, view, height, width, size, channels, at_once, images.device)
    A, D, black, white = _colors(parameters, mean, std, images.device)
    bounds = list(zip(black.flatten().tolist(), white.flatten().tolist(), strict=True))
    black_plus_white = (black + white)[:, :, None]

    table = _padded(at_once, channels, height, width, images.device)
    for start in range(0, batch, at_once):
        part = slice(start, min(start + at_once, batch))
        count = part.stop - part.start
        blur = _sampled_blur(parameters.sigma[part], view, channels, size, images.device)
        table[:count, :, :, :width] = images[part]
        planes = _blur(sum_rows(table[:count], rows[part]), blur)
        planes = planes[..., :width].transpose(2, 3).contiguous()
        planes = _blur(sum_rows(planes, columns[part]), blur)
        # From here on, the rows of `planes` are the columns of the view.

        colors = planes.flatten(2)
        average = colors.mean(dim=2, keepdim=True)
        colors = torch.baddbmm(torch.baddbmm(black, D[part], average), A[part], colors)
        planes = colors.view_as(planes)
        if parameters.solarize[part].any():
            # Solarize is min(x, 1 - x). Values above white become values below black, so the clamp
            # can come later.
            which = _indices(parameters.solarize[part], images.device)
            chosen = planes[which]
            planes[which] = torch.minimum(chosen, black_plus_white - chosen)
        if parameters.transpose[part].any():
            which = _indices(parameters.transpose[part], images.device)
            planes[which] = planes[which].transpose(2, 3)
        for channel, (lowest, highest) in enumerate(bounds):
            plane = planes[:, channel].transpose(1, 2)
            torch.clamp(plane, lowest, highest, out=out[part, channel])


def _images_at_once(channels: int, before: int, after: int, device: torch.device) -> int:
    """How many images fit into the working memory; `before` and `after` are pixels per channel."""
    budget = _WORKING_BYTES.get(device.type, _WORKING_BYTES["cuda"])
    return max(1, budget // (4 * channels * max(before, after)))


def _padded(count: int, channels: int, height: int, width: int, device: torch.device) -> Tensor:
    # If rows are a power of two apart, they compete for the same cache lines, and transposing is
    # slow. The padding is summed like the other columns, and then left out.
    padding = 16 if width % 64 == 0 else 0
    return torch.empty(count, channels, height, width + padding, device=device)


def _crop(
    parameters: ViewParameters,
    view: View,
    height: int,
    width: int,
    size: int,
    channels: int,
    at_once: int,
    device: torch.device,
) -> tuple[RowTaps, RowTaps]:
    """Crop, resize and flip: the taps along rows and along columns."""
    # Both directions in one call, because they are computed in the same way.
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
    parameters: ViewParameters, mean: Sequence[float], std: Sequence[float], device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A and D from values in [0, 255] to normalized colors, and the normalized black and white."""
    center = np.array(mean, dtype=np.float32)[:, None]
    scale = np.array(std, dtype=np.float32)[:, None]
    A, D = color_matrices(parameters, len(mean))
    A /= 255 * scale
    D /= 255 * scale
    black, white = -center / scale, (1 - center) / scale
    on_device = [torch.from_numpy(each).to(device) for each in (A, D, black, white)]
    return on_device[0], on_device[1], on_device[2], on_device[3]


def _indices(flags: Flags, device: torch.device) -> Int[Tensor, "chosen"]:
    """The indices of the images whose flag is set."""
    return torch.from_numpy(np.flatnonzero(flags)).to(device)


def _sampled_blur(
    sigma: Floats, view: View, channels: int, size: int, device: torch.device
) -> tuple[Tensor, RowTaps] | None:
    """The indices of the blurred images and their taps, which rows and columns share."""
    blurred = sigma > 0
    if size == 1 or not blurred.any():
        return None
    which = _indices(blurred, device)
    taps = blur_taps(torch.from_numpy(sigma[blurred]).to(device), size, view.blur_sigma[1])
    return which, taps_of_rows(taps, channels, size, which)


def _blur(
    planes: Float[Tensor, "batch channels size across"], blur: tuple[Tensor, RowTaps] | None
) -> Float[Tensor, "batch channels size across"]:
    """Blur the chosen images along one direction, in place."""
    if blur is None:
        return planes
    which, taps = blur
    blurred = sum_rows(planes, taps)
    if len(which) == len(planes):
        return blurred
    planes[which] = blurred
    return planes
