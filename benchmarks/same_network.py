"""The network of a noneg run, for sides that train it in another way: labels, or lightly."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, final

import numpy as np
import torch
from torch import nn

from noneg.encoder import Encoder
from noneg.images import Images, find_source
from noneg.networks.backbones import build_backbone
from noneg.training.build import (
    arrange_memory,
    build_method,
    describe_encoder,
    draw_first_views,
    feature_width,
    measure_first_layer,
)
from noneg.training.config import make_config
from noneg.training.plan import complete
from noneg.training.precision import choose_precision


@final
class SameNetwork:
    """A backbone of a run with default settings: built, computed and described in the same way.

    Args:
        images: the images to train on; their labels are not used here.
        seed: of the weights, and of all that is random in training.
        settings: of `noneg.train`; those of the backbone and of the images count.
    """

    def __init__(self, images: Images, seed: int, **settings: Any) -> None:
        pixels = np.asarray(images.pixels)
        array = pixels.transpose(0, 2, 3, 1)
        config = make_config(array, seed=seed, accelerator="cpu", **settings)
        self.plan = complete(config, find_source(array))
        self.images, self.pixels, self.seed = images, pixels, seed
        method = build_method(self.plan)
        arrange_memory(method, self.plan)
        self.info = describe_encoder(method.backbone, self.plan, images)
        self.precision = choose_precision(
            "auto",
            self.plan.hardware,
            method,
            lambda most: draw_first_views(images, self.plan, self.info, most),
            torch.device("cpu"),
        ).name

    def build(self) -> tuple[nn.Module, int]:
        """The backbone with the initial weights of the seed, and its width."""
        torch.manual_seed(self.seed)
        backbone = build_backbone(
            self.plan.backbone, channels=self.plan.channels, size=self.plan.size
        )
        measure_first_layer(backbone, self.images, self.plan, self.info)
        return backbone.to(memory_format=torch.channels_last), feature_width(backbone)

    def autocast(self) -> AbstractContextManager[object]:
        """The precision that a run would choose."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16-mixed")

    def batches(self, size: int) -> Iterator[tuple[int, np.ndarray]]:
        """Endless (epoch, indices [size]), in a new order per epoch."""
        for epoch in range(2**31):
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self.pixels))
            for start in range(0, len(order) - size + 1, size):
                yield epoch, order[start : start + size]

    def encoder(self, backbone: nn.Module, **changed: Any) -> Encoder:
        """The trained backbone as noneg's encoder, for noneg's probes."""
        return Encoder(backbone, replace(self.info, **changed))
