"""noneg's fused views differ little from torchvision's operations one after the other."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor

from noneg.views import POLICIES, View
from noneg.views.parameters import sample_parameters
from noneg.views.render import render
from sequential_views import render_sequentially

BYOL = POLICIES["byol"](224)[0]
CROP = dataclasses.replace(BYOL, jitter=0.0, grayscale=0.0, blur=0.0)


@pytest.fixture(scope="module")
def photographs() -> Tensor:
    """16 windows of the two photographs that come with scikit-learn, uint8 [16, 3, 256, 256]."""
    windows = [
        picture[top : top + 256, left : left + 256]
        for picture in load_sample_images().images
        for top in (0, 171)
        for left in (0, 128, 256, 384)
    ]
    return torch.from_numpy(np.stack(windows)).permute(0, 3, 1, 2).contiguous()


def noise() -> Tensor:
    """The hardest images to resize: independent pixels."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (16, 3, 256, 256), dtype=torch.uint8, generator=generator)


def difference(images: Tensor, view: View, size: int) -> Tensor:
    """Absolute differences in gray levels of 255, [batch, 3, size, size]."""
    parameters = sample_parameters(view, 7, np.arange(len(images)), 3, *images.shape[2:])
    fused = torch.empty(len(images), 3, size, size)
    render(images, parameters, view, mean=(0.0,) * 3, std=(1.0,) * 3, out=fused)
    return 255 * (fused - render_sequentially(images, parameters, view, size)).abs()


def quantile(values: Tensor, share: float) -> float:
    return float(np.quantile(values.numpy(), share))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [32, 96, 224, 300])
def test_crops_of_noise_are_torchvisions(interpolation: str, size: int) -> None:
    view = dataclasses.replace(CROP, interpolation=interpolation)
    assert quantile(difference(noise(), view, size), 0.999) < 0.01


def test_crops_of_photographs_are_torchvisions(photographs: Tensor) -> None:
    assert quantile(difference(photographs, CROP, 224), 0.999) < 0.01


def test_blurred_photographs_are_within_a_gray_level(photographs: Tensor) -> None:
    blurred = difference(photographs, dataclasses.replace(CROP, blur=1.0), 224)
    assert quantile(blurred, 0.999) < 1.5
    assert quantile(blurred, 0.99) < 0.25


def test_clamping_once_changes_few_pixels_of_photographs(photographs: Tensor) -> None:
    view = dataclasses.replace(BYOL, hue=0.0, blur=0.0)
    changed = difference(photographs, view, 224)
    assert float(changed.mean()) < 2
    assert quantile(changed, 0.5) < 0.1
    assert quantile(changed, 0.999) < 50


def test_hue_as_a_rotation_stays_close_on_photographs(photographs: Tensor) -> None:
    changed = difference(photographs, BYOL, 224)
    assert 0.1 < float(changed.mean()) < 6
    assert quantile(changed, 0.9) < 18
    assert quantile(changed, 0.999) < 65
