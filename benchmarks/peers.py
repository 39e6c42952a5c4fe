"""The pipelines of other libraries for BYOL's views, as their documentation describes them."""

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec

import torch
from PIL import Image
from torch import Tensor

from noneg.views import POLICIES, Policy

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def require(*names: str) -> None:
    """Exit with one sentence if a library of the comparison is not installed."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise SystemExit(f"{' and '.join(missing)} not found: pip install 'noneg[bench]'")


def byol_views(size: int) -> Policy:
    """What all sides draw: BYOL's views, with bilinear interpolation, as in lightly."""
    return tuple(replace(view, interpolation="bilinear") for view in POLICIES["byol"](size))


def torchvision_views(size: int) -> list[Callable[[Tensor], Tensor]]:
    """Torchvision on one uint8 tensor [3, H, W], its fastest input on a CPU."""
    from torchvision.transforms import v2

    transforms = []
    for view in byol_views(size):
        jitter = v2.ColorJitter(view.brightness, view.contrast, view.saturation, view.hue)
        steps: list[object] = [
            v2.RandomResizedCrop(size, view.crop_scale, view.crop_ratio, antialias=True),
            v2.RandomHorizontalFlip(view.flip),
            v2.RandomApply([jitter], view.jitter),
            v2.RandomGrayscale(view.grayscale),
        ]
        if view.blur:
            steps.append(v2.RandomApply([v2.GaussianBlur(23, view.blur_sigma)], view.blur))
        if view.solarize:
            steps.append(v2.RandomSolarize(128, view.solarize))
        steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
        transforms.append(v2.Compose(steps))
    return transforms


def lightly_views(size: int) -> Callable[[Image.Image], list[Tensor]]:
    """Lightly's BYOLTransform on one PIL image."""
    from lightly.transforms import BYOLTransform
    from lightly.transforms.byol_transform import BYOLView1Transform, BYOLView2Transform

    first, second = byol_views(size)
    transform: Callable[[Image.Image], list[Tensor]] = BYOLTransform(
        BYOLView1Transform(input_size=size, gaussian_blur=first.blur),
        BYOLView2Transform(
            input_size=size, gaussian_blur=second.blur, solarization_prob=second.solarize
        ),
    )
    return transform


def kornia_views(size: int) -> list[Callable[[Tensor], Tensor]]:
    """Kornia on a float batch [B, 3, H, W] in [0, 1], with parameters for each image."""
    from kornia import augmentation

    transforms = []
    for view in byol_views(size):
        jitter = (view.brightness, view.contrast, view.saturation, view.hue)
        steps = [
            augmentation.RandomResizedCrop((size, size), view.crop_scale, view.crop_ratio),
            augmentation.RandomHorizontalFlip(view.flip),
            augmentation.ColorJitter(*jitter, p=view.jitter),
            augmentation.RandomGrayscale(p=view.grayscale),
        ]
        if view.blur:
            steps.append(augmentation.RandomGaussianBlur((23, 23), view.blur_sigma, p=view.blur))
        if view.solarize:
            steps.append(augmentation.RandomSolarize(0.0, 0.0, p=view.solarize))
        steps.append(augmentation.Normalize(torch.tensor(MEAN), torch.tensor(STD)))
        transforms.append(augmentation.AugmentationSequential(*steps, data_keys=["input"]))
    return transforms
