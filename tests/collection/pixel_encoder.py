"""An encoder without training: the pixels of small pictures."""

import torch
from torch import nn
from torch.nn.functional import interpolate

from noneg.encoder import Encoder
from untrained_encoders import describe


class Pixels(nn.Module):
    """8 x 8 pixels of each channel, and the number of calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return interpolate(images, size=(8, 8), mode="bilinear", antialias=True).flatten(1)


def pixel_encoder(module: nn.Module | None = None, features: int = 192) -> Encoder:
    """For images of three channels, at 32 pixels."""
    return Encoder(module or Pixels(), describe("pixels", features=features))
