"""The default backbone: begins like an identity, keeps places apart, sees any size."""

import pytest
import torch
from torch import nn

from noneg.networks.backbones import SMALL, build_backbone
from noneg.networks.small_convnet import SmallConvnet


@pytest.mark.parametrize(("size", "places"), [(16, 3), (32, 7), (64, 15)])
@torch.no_grad()
def test_pools_only_twice(size: int, places: int) -> None:
    backbone = SmallConvnet(3).eval()
    maps = nn.Sequential(*list(backbone.children())[:-1])(torch.zeros(1, 3, size, size))
    assert maps.shape == (1, 256, places, places)


@torch.no_grad()
def test_the_first_channels_of_each_convolution_begin_as_copies() -> None:
    torch.manual_seed(0)
    backbone = SmallConvnet(3)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            images = torch.randn(2, module.in_channels, 6, 6)
            same = min(module.in_channels, module.out_channels)
            torch.testing.assert_close(module(images)[:, :same], images[:, :same])
            if module.out_channels > same:
                # The others are random and different from each other.
                rest = module.weight[same:].flatten(1)
                assert rest.std() > 0
                assert torch.linalg.matrix_rank(rest) == min(rest.shape)


@torch.no_grad()
def test_a_shift_by_the_pooled_step_changes_only_the_border() -> None:
    torch.manual_seed(0)
    backbone = build_backbone(SMALL, channels=1, size=32).eval()
    images = torch.zeros(1, 1, 64, 64)
    images[:, :, 20:30, 20:30] = torch.randn(10, 10)
    shifted = images.roll((4, 8), dims=(2, 3))
    torch.testing.assert_close(backbone(images), backbone(shifted), atol=1e-5, rtol=1e-4)
    # Negative control: a shift within a pooled place does change the features.
    assert not torch.allclose(backbone(images), backbone(images.roll(1, dims=2)), atol=1e-5)
