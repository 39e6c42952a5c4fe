"""uint8 images -> random float views, a whole batch at a time, every image with its own draw.

Crop, resize, flip and blur are linear and separable: for each image one matrix for the rows and
one for the columns. Brightness, contrast, saturation, hue and greyscale are affine in the
channels: for each image one matrix and one offset. Then follow clamp, solarize and normalise.

Where this differs from torchvision's operations one after the other: values are clamped to [0, 1]
once, after the colour operations, not between them; hue is a rotation about the grey axis, not a
shift in HSV; contrast takes its mean after the blur (which keeps means but for the border).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from noneg.errors import NonegError
from noneg.randomness import hash_key, uniform

# Rec. 601 luma, the weights torchvision and Pillow use for grey.
LUMA = (0.2989, 0.587, 0.114)
CROP_ATTEMPTS = 10


@dataclass(frozen=True)
class View:
    """How one view is drawn. Probabilities and strengths in [0, 1]; 0 switches an operation off.

    Args:
        size: side of the view in pixels; None for the run's size.
        crop_scale: share of the image's area that a crop takes, drawn uniformly.
        crop_ratio: width over height of a crop, drawn uniformly on a log scale.
        flip: probability of a left-right flip.
        vertical_flip: probability of an upside-down flip.
        jitter: probability of colour jitter (the next four), in random order.
        brightness: factor drawn from [1 - brightness, 1 + brightness].
        contrast: the same, about the mean grey.
        saturation: the same, about the pixel's grey; three channels only.
        hue: rotation drawn from [-hue, hue] turns, at most 0.5; three channels only.
        grey: probability of greyscale; three channels only.
        blur: probability of a Gaussian blur.
        blur_sigma: its standard deviation in output pixels, drawn uniformly.
        solarize: probability of inverting what is brighter than one half.
    """

    size: int | None = None
    crop_scale: tuple[float, float] = (0.2, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    vertical_flip: float = 0.0
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    grey: float = 0.2
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip", "vertical_flip", "jitter", "grey", "blur", "solarize"):
            if not 0 <= getattr(self, name) <= 1:
                raise NonegError(f"views: {name} is a probability in [0, 1]: {getattr(self, name)}")
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise NonegError(f"views: {name} lies in [0, 1]: {getattr(self, name)}")
        if not 0 <= self.hue <= 0.5:
            raise NonegError(f"views: hue lies in [0, 0.5] turns: {self.hue}")
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise NonegError(
                f"views: crop_scale is low, high with 0 < low <= high <= 1: {self.crop_scale}"
            )
        if not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise NonegError(
                f"views: crop_ratio is low, high with 0 < low <= high: {self.crop_ratio}"
            )
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise NonegError(
                f"views: blur_sigma is low, high with 0 < low <= high: {self.blur_sigma}"
            )


Policy = tuple[View, ...]


def _blur_for(size: int, probability: float) -> float:
    # The papers blur at 224 px. At 32 px a blur leaves nothing to learn from, and none is used.
    return probability if size > 64 else 0.0


def byol_policy(size: int) -> Policy:
    """BYOL, appendix B, table 6: asymmetric blur and solarize. Also Barlow Twins' and VICReg's."""
    base = View(crop_scale=(0.08, 1.0), saturation=0.2)
    return (
        replace(base, blur=_blur_for(size, 1.0)),
        replace(base, blur=_blur_for(size, 0.1), solarize=0.2),
    )


def simsiam_policy(size: int) -> Policy:
    """SimSiam, section 3 and appendix A: MoCo v2's augmentations, symmetric."""
    return (View(blur=_blur_for(size, 0.5)),) * 2


def gentle_policy(size: int) -> Policy:
    """Larger crops and milder colours, symmetric: for small images and short runs."""
    return (View(crop_scale=(0.3, 1.0), saturation=0.2, blur=_blur_for(size, 0.2)),) * 2


def outline_policy(size: int) -> Policy:
    """Hues turned all the way round, upside down or not: for images whose outlines matter alone."""
    colours = View(crop_scale=(0.3, 1.0), jitter=1.0, saturation=0.8, hue=0.5, grey=0.3)
    return (replace(colours, vertical_flip=0.5, blur=_blur_for(size, 0.2)),) * 2


def weak_policy(_size: int) -> Policy:
    """Crop and flip alone: what no image set is harmed by."""
    return (View(jitter=0.0, grey=0.0),) * 2


POLICIES: dict[str, Callable[[int], Policy]] = {
    "byol": byol_policy,
    "simsiam": simsiam_policy,
    "gentle": gentle_policy,
    "outline": outline_policy,
    "weak": weak_policy,
}


@dataclass(frozen=True)
class Draw:
    """The parameters of one view of every image in a batch.

    Boxes are in input pixels; factors are 1 and angles 0 where an operation was not drawn.
    """

    top: Float[Tensor, "batch"]
    left: Float[Tensor, "batch"]
    height: Float[Tensor, "batch"]
    width: Float[Tensor, "batch"]
    flip: Float[Tensor, "batch"]
    vertical_flip: Float[Tensor, "batch"]
    order: Int[Tensor, "batch 4"]
    brightness: Float[Tensor, "batch factors"]
    contrast: Float[Tensor, "batch factors"]
    saturation: Float[Tensor, "batch"]
    hue: Float[Tensor, "batch"]
    grey: Float[Tensor, "batch"]
    sigma: Float[Tensor, "batch"]
    solarize: Float[Tensor, "batch"]


def draw_crop(
    view: View, key: int, index: Int[Tensor, "batch"], height: int, width: int
) -> tuple[
    Float[Tensor, "batch"], Float[Tensor, "batch"], Float[Tensor, "batch"], Float[Tensor, "batch"]
]:
    """Random resized crop as Inception has it: the first of ten that fits, else the centre."""
    u = uniform(hash_key(key, 0), index, 2 * CROP_ATTEMPTS + 2)
    low, high = view.crop_scale
    area = height * width * (low + (high - low) * u[:, :CROP_ATTEMPTS])
    low, high = (math.log(ratio) for ratio in view.crop_ratio)
    ratio = torch.exp(low + (high - low) * u[:, CROP_ATTEMPTS : 2 * CROP_ATTEMPTS])
    box_width = torch.sqrt(area * ratio).round().clamp(min=1)
    box_height = torch.sqrt(area / ratio).round().clamp(min=1)
    fits = (box_width <= width) & (box_height <= height)
    first = fits.to(torch.int64).argmax(dim=1, keepdim=True)
    box_width = box_width.gather(1, first)[:, 0]
    box_height = box_height.gather(1, first)[:, 0]
    top = torch.floor(u[:, -2] * (height - box_height + 1))
    left = torch.floor(u[:, -1] * (width - box_width + 1))

    whole_ratio = min(max(width / height, view.crop_ratio[0]), view.crop_ratio[1])
    whole_width = max(1, round(min(width, height * whole_ratio)))
    whole_height = max(1, round(min(height, width / whole_ratio)))
    none_fits = ~fits.any(dim=1)
    box_width = box_width.masked_fill(none_fits, whole_width)
    box_height = box_height.masked_fill(none_fits, whole_height)
    top = top.masked_fill(none_fits, (height - whole_height) // 2)
    left = left.masked_fill(none_fits, (width - whole_width) // 2)
    return top, left, box_height, box_width


def draw(
    view: View, key: int, index: Int[Tensor, "batch"], channels: int, height: int, width: int
) -> Draw:
    """The random parameters of one view: a function of the key and of each image's index alone."""
    top, left, box_height, box_width = draw_crop(view, key, index, height, width)
    happens = uniform(hash_key(key, 1), index, 6)
    jittered = happens[:, 2:3] < view.jitter
    # Images that are neither grey nor RGB have channels that vary on their own.
    factors = 1 if channels in (1, 3) else channels
    strength = 2 * uniform(hash_key(key, 2), index, 2 * factors + 3) - 1

    def factor(amount: float, columns: Tensor) -> Tensor:
        return torch.where(jittered, 1 + amount * columns, 1.0)

    low, high = view.blur_sigma
    sigma = low + (high - low) * (strength[:, -1] + 1) / 2
    return Draw(
        top=top,
        left=left,
        height=box_height,
        width=box_width,
        flip=(happens[:, 0] < view.flip).float(),
        vertical_flip=(happens[:, 1] < view.vertical_flip).float(),
        order=uniform(hash_key(key, 3), index, 4).argsort(dim=1),
        brightness=factor(view.brightness, strength[:, :factors]),
        contrast=factor(view.contrast, strength[:, factors : 2 * factors]),
        saturation=factor(view.saturation, strength[:, -3:-2])[:, 0],
        hue=torch.where(jittered[:, 0], view.hue * strength[:, -2], 0.0),
        grey=(happens[:, 3] < view.grey).float(),
        sigma=torch.where(happens[:, 4] < view.blur, sigma, 0.0),
        solarize=(happens[:, 5] < view.solarize).float(),
    )


def resample_matrix(
    start: Float[Tensor, "batch"], length: Float[Tensor, "batch"], source: int, target: int
) -> Float[Tensor, "batch target source"]:
    """Antialiased linear resampling of pixels [start, start + length) to `target` pixels.

    A triangle filter as wide as an output pixel, at least as wide as an input pixel, cut off at
    the box's border: what torchvision's `resized_crop(antialias=True)` computes.
    """
    scale = (length / target)[:, None, None]
    outputs = torch.arange(target, device=start.device) + 0.5
    inputs = torch.arange(source, device=start.device) + 0.5
    offset = inputs - start[:, None, None]
    distance = (offset - outputs[:, None] * scale).abs() / scale.clamp(min=1)
    inside = (offset > 0) & (offset < length[:, None, None])
    weight = (1 - distance).clamp(min=0) * inside
    return weight / weight.sum(dim=2, keepdim=True)


def blur_matrix(
    sigma: Float[Tensor, "batch"], size: int, largest_sigma: float
) -> Float[Tensor, "batch size size"]:
    """A Gaussian blur of `size` pixels with mirrored borders; sigma 0 is the identity."""
    radius = min(max(1, math.ceil(3 * largest_sigma)), size - 1)
    offsets = torch.arange(-radius, radius + 1, device=sigma.device)
    exponent = -0.5 * (offsets / sigma.clamp(min=1e-3)[:, None]) ** 2
    weight = torch.softmax(exponent, dim=1)
    pixels = torch.arange(size, device=sigma.device)
    position = (pixels[:, None] + offsets).abs()
    position = torch.where(position > size - 1, 2 * (size - 1) - position, position)
    lands_on = (position[..., None] == pixels).to(weight.dtype)
    return torch.einsum("bo,tos->bts", weight, lands_on)


def crop_matrices(
    parameters: Draw, height: int, width: int, size: int, largest_sigma: float
) -> tuple[Float[Tensor, "batch size height"], Float[Tensor, "batch size width"]]:
    """Crop, resize, flip and blur, as one matrix for the rows and one for the columns."""
    rows = resample_matrix(parameters.top, parameters.height, height, size)
    columns = resample_matrix(parameters.left, parameters.width, width, size)
    rows = torch.where(parameters.vertical_flip[:, None, None] > 0, rows.flip(1), rows)
    columns = torch.where(parameters.flip[:, None, None] > 0, columns.flip(1), columns)
    if largest_sigma > 0 and size > 1:
        blur = blur_matrix(parameters.sigma, size, largest_sigma)
        rows, columns = blur @ rows, blur @ columns
    return rows, columns


def colour_matrix(
    parameters: Draw, mean: Float[Tensor, "batch channels"]
) -> tuple[Float[Tensor, "batch channels channels"], Float[Tensor, "batch channels"]]:
    """Jitter in each image's own order, then greyscale, as `matrix @ colour + offset`.

    Args:
        parameters: the draw.
        mean: each image's channel means after the crop, in [0, 1]; contrast turns about them.
    """
    batch, channels = mean.shape
    identity = torch.eye(channels, device=mean.device)
    if channels == 3:
        grey = torch.tensor(LUMA, device=mean.device).expand(3, 3)
        turn = 2 * math.pi * parameters.hue[:, None, None]
        third = torch.full((3, 3), 1 / 3, device=mean.device)
        cross = torch.tensor(
            [[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]], device=mean.device
        ) / math.sqrt(3)
        # Rodrigues' rotation about (1, 1, 1) / sqrt(3).
        hue = turn.cos() * identity + (1 - turn.cos()) * third + turn.sin() * cross
        fade = parameters.saturation[:, None, None]
        saturation = fade * identity + (1 - fade) * grey
    else:
        grey = identity
        hue = saturation = identity.expand(batch, channels, channels)
    jitter = torch.stack(
        [
            parameters.brightness[:, :, None] * identity,
            parameters.contrast[:, :, None] * identity,
            saturation,
            hue,
        ],
        dim=1,
    )
    matrix = identity.expand(batch, channels, channels)
    offset = torch.zeros_like(mean)
    for position in range(4):
        operation = parameters.order[:, position]
        step = jitter[torch.arange(batch, device=mean.device), operation]
        is_contrast = (operation == 1)[:, None]
        shift = torch.where(is_contrast, (1 - parameters.contrast) * (mean @ grey.T), 0.0)
        matrix = step @ matrix
        offset = torch.einsum("bij,bj->bi", step, offset) + shift
        mean = torch.einsum("bij,bj->bi", step, mean) + shift
    is_grey = parameters.grey[:, None, None] > 0
    matrix = torch.where(is_grey, grey @ matrix, matrix)
    offset = torch.where(is_grey[:, 0], offset @ grey.T, offset)
    return matrix, offset


def render(
    pixels: Float[Tensor, "batch channels height width"],
    parameters: Draw,
    size: int,
    *,
    largest_sigma: float = 0.0,
) -> Float[Tensor, "batch channels {size} {size}"]:
    """Apply one draw to images in [0, 1]; the views stay in [0, 1]."""
    _, _, height, width = pixels.shape
    rows, columns = crop_matrices(parameters, height, width, size, largest_sigma)
    views = rows[:, None] @ (pixels @ columns.transpose(1, 2)[:, None])
    matrix, offset = colour_matrix(parameters, views.mean(dim=(2, 3)))
    views = torch.baddbmm(offset[:, :, None], matrix, views.flatten(2)).view_as(views).clamp(0, 1)
    inverted = (parameters.solarize[:, None, None, None] > 0) & (views >= 0.5)
    return torch.where(inverted, 1 - views, views)


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
) -> tuple[Float[Tensor, "batch channels _ _"], ...]:
    """One random view of every image for each entry of the policy, on the images' device.

    Args:
        images: uint8 [batch, channels, height, width].
        index: int64 [batch], each image's number in its set. With seed, epoch and the view's
            place in the policy it decides the draw; nothing else does.
        policy: one `View` for each view.
        size: side of the views in pixels, where a `View` does not name its own.
        seed: of the run.
        epoch: how often this image has been seen before.
        mean: of each channel, on pixels in [0, 1], subtracted from the views.
        std: of each channel, which the views are divided by.

    Returns:
        For each view float32 [batch, channels, size, size], channels-last in memory.
    """
    channels, height, width = images.shape[1:]
    pixels = images.to(torch.float32) / 255
    centre = torch.tensor(mean, device=images.device)[:, None, None]
    spread = torch.tensor(std, device=images.device)[:, None, None]
    views = []
    for number, view in enumerate(policy):
        key = hash_key(seed, epoch, number)
        parameters = draw(view, key, index, channels, height, width)
        largest_sigma = view.blur_sigma[1] if view.blur > 0 else 0.0
        rendered = render(pixels, parameters, view.size or size, largest_sigma=largest_sigma)
        normalised = (rendered - centre) / spread
        views.append(normalised.contiguous(memory_format=torch.channels_last))
    return tuple(views)
