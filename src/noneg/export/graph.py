"""The encoder as one module: pictures in, features out, as exporters take it."""

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn
from torch.nn.functional import interpolate

from noneg.encoder import EncoderInfo


class Graph(nn.Module):
    """Resizing, normalization and backbone, like `Encoder.pixels_to_features`.

    Args:
        module: the backbone; it is not copied.
        info: of the encoder.
    """

    def __init__(self, module: nn.Module, info: EncoderInfo) -> None:
        """Keep mean and std as tensors of the graph."""
        super().__init__()
        self.module = module
        self.size, self.mode = info.size, info.interpolation
        self.register_buffer("mean", torch.tensor(info.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(info.std)[:, None, None])

    def forward(
        self, images: UInt8[Tensor, "batch channels side side"]
    ) -> Float32[Tensor, "batch features"]:
        """Features of square pictures of any size."""
        scaled = interpolate(
            images.float() / 255,
            size=(self.size, self.size),
            mode=self.mode,
            antialias=True,
            align_corners=False,
        )
        if self.mode == "bicubic":
            scaled = scaled.clamp(0, 1)
        features: Tensor = self.module((scaled - self.get_buffer("mean")) / self.get_buffer("std"))
        return features
