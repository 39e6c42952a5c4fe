"""Views with noneg's sampled parameters, rendered by torchvision one operation after the other.

This is what a common pipeline computes: values are clamped between operations, the hue is shifted
in HSV, and contrast is relative to the mean before the blur. It is slow; it shows what noneg's
fused operations change.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from noneg.randomness import hash_key
from noneg.views import Policy, View, view_sizes
from noneg.views.parameters import ViewParameters, sample_parameters


def render_sequentially(
    images: Tensor, parameters: ViewParameters, view: View, size: int
) -> Tensor:
    """Views in [0, 1], float32 [B, 3, size, size], of uint8 images [B, 3, H, W]."""
    return torch.stack(
        [_render_one(images[n], parameters, n, view, size) for n in range(len(images))]
    )


def _render_one(image: Tensor, parameters: ViewParameters, n: int, view: View, size: int) -> Tensor:
    def value(name: str) -> float:
        return float(getattr(parameters, name)[n].item())

    box = [int(value(name)) for name in ("top", "left", "height", "width")]
    mode = InterpolationMode(view.interpolation)
    image = image.to(torch.float32) / 255
    image = functional.resized_crop(image, *box, [size, size], mode, antialias=True).clamp(0, 1)
    if value("flip"):
        image = functional.horizontal_flip(image)
    if value("vertical_flip"):
        image = functional.vertical_flip(image)
    if value("transpose"):
        image = image.transpose(1, 2)
    adjust = [
        lambda x: functional.adjust_brightness(x, value("brightness")),
        lambda x: functional.adjust_contrast(x, value("contrast")),
        lambda x: functional.adjust_saturation(x, value("saturation")),
        lambda x: functional.adjust_hue(x, value("hue")),
    ]
    for operation in parameters.order[n]:
        image = adjust[operation](image)
    if value("grayscale"):
        image = functional.rgb_to_grayscale(image, num_output_channels=3)
    if value("sigma"):
        image = functional.gaussian_blur(image, [23, 23], [value("sigma")] * 2)
    if value("solarize"):
        image = functional.solarize(image, 0.5)
    return image


def draw_sequential_views(
    images: Tensor,
    index: Tensor,
    policy: Policy,
    *,
    size: int,
    seed: int,
    epoch: int,
    mean: Sequence[float],
    std: Sequence[float],
    out: Any = None,  # noqa: ARG001  (the views are always new tensors)
) -> tuple[Tensor, ...]:
    """Takes the place of `noneg.views.draw_views`."""
    _, channels, height, width = images.shape
    center = torch.tensor(mean)[:, None, None]
    spread = torch.tensor(std)[:, None, None]
    views = []
    for number, (view, side) in enumerate(zip(policy, view_sizes(policy, size), strict=True)):
        key = hash_key(seed, epoch, number)
        parameters = sample_parameters(view, key, index.numpy(), channels, height, width)
        rendered = render_sequentially(images, parameters, view, side)
        normalized = (rendered - center) / spread
        views.append(normalized.contiguous(memory_format=torch.channels_last))
    return tuple(views)
