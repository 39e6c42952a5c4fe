"""Encoders without training, for tests that need some network and not a good one."""

import torch

from noneg.encoder import Encoder, EncoderInfo
from noneg.networks.backbones import SMALL, build_backbone


def describe(
    backbone: str = SMALL, *, channels: int = 3, size: int = 32, features: int = 256
) -> EncoderInfo:
    """Images of `channels` and `size`, centered on gray."""
    return EncoderInfo(
        backbone=backbone,
        channels=channels,
        size=size,
        stored_size=size,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        features=features,
        method="none",
    )


def untrained_encoder(*, channels: int = 3, size: int = 32, seed: int = 0) -> Encoder:
    """The default backbone with the weights of this seed."""
    torch.manual_seed(seed)
    module = build_backbone(SMALL, channels=channels, size=size)
    return Encoder(module, describe(channels=channels, size=size))
