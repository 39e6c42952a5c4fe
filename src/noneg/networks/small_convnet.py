"""The default backbone for small images and CPUs: four plain convolutions on whitened patches.

Measured under a budget of CPU minutes (docs/log.md, 2026-11-27): it pools twice only, so that its
last feature map still has 7 x 7 places at 32 pixels, each of which sees 23 x 23 pixels. The
whitened first layer, the identity-like initial weights and the pooling after each stage's first
convolution follow Jordan 2024 (arXiv 2404.00498), who trained such networks with labels.
"""

from collections import OrderedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn

from noneg.networks.patch_whitening import PatchWhitening

WIDTHS = (64, 256)


class SmallConvnet(nn.Sequential):
    """Whitened patches, two stages of two convolutions, the mean over places.

    Args:
        channels: of the images.
        widths: of the two stages; the second one is the number of features.
    """

    def __init__(self, channels: int, widths: tuple[int, int] = WIDTHS) -> None:
        """The convolutions begin as identities where the widths allow, and random elsewhere."""
        whitening = PatchWhitening(channels)
        first, second = widths
        super().__init__(
            OrderedDict(
                whitening=whitening,
                activation=nn.GELU(),
                stage1=_stage(whitening.out_channels, first),
                stage2=_stage(first, second),
                mean=MeanOverPlaces(),
            )
        )


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(_convolution(inputs, outputs, pooled=True), _convolution(outputs, outputs))


def _convolution(inputs: int, outputs: int, *, pooled: bool = False) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    # The first outputs repeat the inputs; the others keep PyTorch's random weights.
    nn.init.dirac_(convolution.weight.detach()[: min(inputs, outputs)])
    pooling = [nn.MaxPool2d(2)] if pooled else []
    return nn.Sequential(convolution, *pooling, nn.BatchNorm2d(outputs), nn.GELU())


class MeanOverPlaces(nn.Module):
    """The mean of a feature map over its places."""

    def forward(self, maps: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d"]:
        """One vector per image."""
        return torch.mean(maps, dim=(2, 3))
