"""What a method suggests for a run. Free of torch, so that `noneg train --help` is quick."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Recipe:
    """Everything a method suggests for a run; each field can be set on its own.

    Args:
        options: the method's own config.
        epochs: passes over the images.
        batch_size: images a step, over all devices.
        optimizer: which update rule.
        learning_rate: for a batch of 256; scaled in proportion to the batch.
        weight_decay: on weights; never on biases and norms.
        bias_rate: learning rate of biases and norms, in multiples of the weights'.
        warmup_epochs: of linear warm-up, before the cosine.
        views: name of the policy.
    """

    options: object
    epochs: int = 100
    batch_size: int = 256
    optimizer: Literal["adamw", "sgd", "lars"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    bias_rate: float = 1.0
    warmup_epochs: float = 1.0
    views: str = "gentle"
