"""What a method suggests for a run. Free of torch, so that `noneg train --help` is quick."""

from dataclasses import dataclass, replace
from typing import Literal, final

ADAPT = "adapt"
"""The name of the recipe for known weights, which every method has."""


@final
@dataclass(frozen=True)
class Recipe:
    """Everything a method suggests for a run; each field can be set separately.

    Args:
        options: the method's own settings.
        epochs: passes over the images.
        batch_size: images per step, over all devices.
        optimizer: name of the optimizer.
        learning_rate: for a batch of 256; it is scaled in proportion to the batch.
        weight_decay: for weights, but not for biases and norm layers.
        bias_rate: learning rate of biases and norm layers, relative to that of the weights.
        warmup_epochs: epochs of linear warm-up before the cosine schedule.
        views: name of the policy.
        num_views: views per image; None for as many as the policy has.
        norm: as the setting of this name.
        heads_first: epochs in which only the heads learn.
        backbone_rate: learning rate of the backbone, relative to that of the heads.
        layer_decay: learning rate of each layer of the backbone, relative to that of the next one.
    """

    options: object
    epochs: int = 100
    batch_size: int = 256
    optimizer: Literal["adamw", "muon", "sgd", "lars", "larc"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    bias_rate: float = 1.0
    warmup_epochs: float = 1.0
    views: str = "gentle"
    num_views: int | None = None
    norm: Literal["batch", "group", "frozen"] = "batch"
    heads_first: float = 0.0
    backbone_rate: float = 1.0
    layer_decay: float = 1.0


def adapted(small: Recipe, backbone_rate: float = 0.1) -> Recipe:
    """The recipe for a run that begins with known weights, from a method's small one.

    The backbone has learned already, and the heads have not. So the heads learn first, and then the
    backbone moves slowly, the layers near the images least. It keeps its batch statistics: measured
    on views, which are smaller than the images, others would cost nine points (the log of
    2026-11-28).

    Args:
        small: the method's recipe for small images and short runs.
        backbone_rate: learning rate of the backbone, relative to that of the heads.
    """
    return replace(
        small,
        epochs=10,
        optimizer="adamw",
        learning_rate=4e-3,
        warmup_epochs=1.0,
        norm="frozen",
        heads_first=1.0,
        backbone_rate=backbone_rate,
        layer_decay=0.8,
    )
