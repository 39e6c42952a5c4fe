"""What a method suggests for a run. Free of torch, so that `noneg train --help` is quick."""

from dataclasses import dataclass
from typing import Literal, final


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
    """

    options: object
    epochs: int = 100
    batch_size: int = 256
    optimizer: Literal["adamw", "muon", "sgd", "lars"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    bias_rate: float = 1.0
    warmup_epochs: float = 1.0
    views: str = "gentle"
