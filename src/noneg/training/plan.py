"""The plan of a run: a config, completed for its images and its machine."""

from dataclasses import dataclass, replace
from typing import final

from noneg.errors import NonegError
from noneg.images import ImageSource
from noneg.methods import find_method
from noneg.networks.backbones import SMALL, image_size_argument
from noneg.networks.own import is_own
from noneg.networks.pretrained import Known
from noneg.training.config import TrainConfig
from noneg.training.hardware import Hardware, choose_hardware
from noneg.views import Policy

# Crops are sharper if the images are a bit larger than the views, such as 256 pixels for 224.
_STORED_PER_VIEW = 8 / 7


@final
@dataclass(frozen=True)
class Plan:
    """All that is decided before a run starts.

    Args:
        config: all settings, with the values below filled in, as in config.yaml.
        size: side of the encoder's images in pixels; views may be smaller.
        channels: of the images.
        batch_size: images per step over all devices.
        backbone: a name that `build_backbone` takes.
        policy: the views of each image.
        hardware: the devices of the run.
    """

    config: TrainConfig
    size: int
    channels: int
    batch_size: int
    backbone: str
    policy: Policy
    hardware: Hardware


@final
@dataclass(frozen=True)
class Steps:
    """The number of steps of a run: per epoch, in total, and in the warm-up.

    Attributes:
        heads_first: steps in which only the heads learn.
        before: steps in the epochs before `first_epoch`. Order, views and random numbers depend on
            the number of the step, counted from these on.
    """

    per_epoch: int
    total: int
    warmup: int
    before: int = 0
    heads_first: int = 0

    @property
    def epochs(self) -> float:
        """The length of the run in epochs."""
        return self.total / self.per_epoch


def steps_of(plan: Plan, images: int) -> Steps:
    """The steps for a number of readable images, without the last, incomplete batch per epoch.

    Raises:
        NonegError: the number of steps is not fixed yet.
    """
    config, per_epoch = plan.config, images // plan.batch_size
    total = config.steps
    if total is None and config.epochs is not None:
        total = config.epochs * per_epoch
    if total is None:
        raise NonegError("--minutes is not a number of steps before some steps were timed")
    warmup = round(config.warmup_epochs * per_epoch)
    before = (config.first_epoch or 0) * per_epoch
    heads_first = round(config.heads_first * per_epoch)
    return Steps(per_epoch, total, min(warmup, total // 10), before, min(heads_first, total // 5))


def complete(config: TrainConfig, source: ImageSource, start: Known | None = None) -> Plan:
    """Fill in what depends on the images: channels, size, backbone and batch size.

    Args:
        config: what was asked for.
        source: the images.
        start: the weights that the run begins with; they decide size and backbone.
    """
    backbone = config.backbone
    if start is not None:
        size, backbone = config.size or start.size, start.backbone
    else:
        size = config.size or choose_size(source.natural_size())
    if backbone == "auto":
        backbone = SMALL if size <= 64 or choose_hardware(config).on_cpu else "resnet18"
    batch_size = config.batch_size
    if batch_size is None:
        recipe = find_method(config.method).recipe(config.recipe)
        batch_size = choose_batch_size(len(source), recipe.batch_size)
    return plan_of(
        replace(
            config,
            channels=config.channels or source.natural_channels(),
            size=size,
            view_size=config.view_size or choose_view_size(size, backbone, known=start is not None),
            backbone=backbone,
            batch_size=batch_size,
        )
    )


def plan_of(config: TrainConfig) -> Plan:
    """The plan of a config that is complete, such as the config of a started run.

    Raises:
        NonegError: size, channels, batch_size or backbone has no value.
    """
    size, channels, batch_size = config.size, config.channels, config.batch_size
    if size is None or channels is None or batch_size is None or config.backbone == "auto":
        raise NonegError(
            "these are not the settings of a started run: size, channels, batch_size and backbone "
            "must have values"
        )
    return Plan(
        config=config,
        size=size,
        channels=channels,
        batch_size=batch_size,
        backbone=config.backbone,
        policy=config.policy(size),
        hardware=choose_hardware(config),
    )


def choose_size(natural: int) -> int:
    """Side of the views for images whose short side is `natural` pixels."""
    return 32 if natural <= 48 else 64


def choose_view_size(size: int, backbone: str, *, known: bool = False) -> int:
    """Side of the views for an encoder of images of `size` pixels.

    Half of it for small_convnet, but 20 pixels at least: each of its features sees 23. Half of it,
    but 96 at least, for known weights of a network that takes images of any size. Else all of it.

    Args:
        size: side of the encoder's images in pixels.
        backbone: a name that `build_backbone` takes.
        known: whether the run begins with known weights.
    """
    if backbone == SMALL:
        return min(size, max(20, size // 2))
    if known and not is_own(backbone) and not image_size_argument(backbone, size):
        return min(size, max(96, size // 2))
    return size


def choose_batch_size(images: int, recipe_batch_size: int) -> int:
    """A power of two that gives about thirty steps per epoch, from 64 to the recipe's batch size.

    It is below 64 only if there are too few images for two batches of 64.
    """

    def power_of_two(number: int) -> int:
        return 1 << max(1, number.bit_length() - 1)

    return min(recipe_batch_size, max(64, power_of_two(images // 30)), power_of_two(images // 2))


def stored_size(size: int, natural: int) -> int:
    """Side for decoding images: 8/7 of the views', at most the images' own, at least the views'."""
    return max(size, min(round(size * _STORED_PER_VIEW), natural))
