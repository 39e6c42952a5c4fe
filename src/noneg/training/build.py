"""What a run needs before its first step: images, sizes, weights."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8
from torch import nn

from noneg.encoder import EncoderInfo
from noneg.errors import NonegError
from noneg.evaluation.scores import split_for_evaluation
from noneg.images import (
    Images,
    ImageSource,
    PixelsOnDemand,
    find_source,
    images_on_demand,
    load_images,
)
from noneg.images.load import fits_in_memory
from noneg.images.named import is_data_set
from noneg.methods import find_method
from noneg.methods.base import Method
from noneg.networks.backbones import SMALL, build_backbone
from noneg.networks.norms import measure_statistics, use_group_norm
from noneg.training.batches import epoch_order
from noneg.training.config import TrainConfig
from noneg.training.hardware import choose_hardware
from noneg.views import draw_views, view_sizes

# Crops are sharper when cut from images somewhat larger than the views: 256 for 224, as usual.
_STORED_PER_VIEW = 8 / 7


def choose_size(natural: int) -> int:
    """Side of the views for images whose short side is `natural` pixels."""
    return 32 if natural <= 48 else 64


def choose_batch_size(images: int, recipe_batch_size: int) -> int:
    """About thirty steps an epoch, in powers of two: 64 images to the recipe's number.

    Fewer than 64 only where two batches of 64 would not come together.
    """

    def power_of_two(number: int) -> int:
        return 1 << max(1, number.bit_length() - 1)

    return min(recipe_batch_size, max(64, power_of_two(images // 30)), power_of_two(images // 2))


def complete(config: TrainConfig, source: ImageSource) -> TrainConfig:
    """Fill in what the images decide: channels, size, backbone, batch size.

    Raises:
        NonegError: there are fewer images than one batch.
    """
    size = config.size or choose_size(source.natural_size())
    backbone = config.backbone
    if backbone == "auto":
        on_cpu = choose_hardware(config).accelerator == "cpu"
        backbone = SMALL if size <= 64 or on_cpu else "resnet18"
    batch_size = config.batch_size
    if batch_size is None:
        recipe = find_method(config.method).recipe(config.recipe)
        batch_size = choose_batch_size(len(source), recipe.batch_size)
    return replace(
        config,
        channels=config.channels or source.natural_channels(),
        size=size,
        backbone=backbone,
        batch_size=batch_size,
    )


def stored_size(size: int, natural: int) -> int:
    """Side that images are decoded to: no more than they have, no less than the views need."""
    return max(size, min(round(size * _STORED_PER_VIEW), natural))


def choose_cache(needed: int, directory: Path) -> Literal["memory", "disk", "none"]:
    """Where `needed` bytes of decoded images can be kept during a run."""
    if fits_in_memory(needed):
        return "memory"
    # Checkpoints and others' files want some of the disk as well.
    return "disk" if needed <= free_disk(directory) // 2 else "none"


def free_disk(directory: Path) -> int:
    """Bytes that can still be written there."""
    return shutil.disk_usage(directory).free


def load_for_training(source: ImageSource, config: TrainConfig, directory: Path) -> Images:
    """Decode all images once, or on demand where there is room for none of them.

    Raises:
        NonegError: no image is readable, or fewer than one batch are.
    """
    assert config.channels is not None
    assert config.size is not None
    assert config.batch_size is not None
    size = stored_size(config.size, source.natural_size())
    place = config.cache
    if place == "auto":
        place = choose_cache(len(source) * config.channels * size * size, directory)
    if place == "none":
        images = images_on_demand(source, channels=config.channels, size=size, strict=config.strict)
    else:
        images = load_images(
            source,
            channels=config.channels,
            size=size,
            strict=config.strict,
            cache_file=directory / "images.bytes",
            in_memory=place == "memory",
            progress=True,
        )
    count = len(images.pixels)
    if count < config.batch_size:
        raise NonegError(
            f"{source.description} has {count} readable images, fewer than one batch of "
            f"{config.batch_size}: give more images, or "
            f"--batch_size {choose_batch_size(count, config.batch_size)}"
        )
    return images


def load_for_evaluation(
    config: TrainConfig, images: Images, eval_data: Any, eval_labels: Any
) -> tuple[Images, Images] | None:
    """Labeled images to learn from and to test on; None where there are no labels.

    The test images are those that were named, else the named data set's own, else a fifth of the
    training images. What the probes learn from are the training images where they have labels.

    Raises:
        NonegError: the images named for evaluation have no labels.
    """
    test = None
    if eval_data is not None or is_data_set(config.data):
        wanted = config.data if eval_data is None else eval_data
        source = find_source(wanted, labels=eval_labels, split="test")
        _, channels, size, _ = images.pixels.shape
        test = load_images(source, channels=channels, size=size, progress=True)
        if test.labels is None and eval_data is not None:
            raise NonegError(
                f"{source.description} has no labels to score with: --eval_data wants one "
                "subfolder a class, or a .npz with images and labels"
            )
    labeled = [part for part in (images, test) if part is not None and part.labels is not None]
    if len(labeled) == 2:
        return labeled[0], labeled[1]
    if not labeled:
        return None
    return split_for_evaluation(labeled[0], seed=config.seed, most=config.evaluation_images)


def measure_normalization(
    pixels: UInt8[np.ndarray, "images channels height width"] | PixelsOnDemand, most: int = 5_000
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of each channel, on pixels in [0, 1], over at most `most` images."""
    chosen = np.arange(0, len(pixels), max(1, -(-len(pixels) // most)))
    means, squares = [], []
    for start in range(0, len(chosen), 100):
        block = pixels[chosen[start : start + 100]].astype(np.float64) / 255
        means.append(block.mean(axis=(2, 3)))
        squares.append(np.square(block).mean(axis=(2, 3)))
    mean = np.concatenate(means).mean(axis=0)
    variance = np.concatenate(squares).mean(axis=0) - mean**2
    # An image set of one color has no spread to divide by.
    std = np.sqrt(np.maximum(variance, 1 / 255**2))
    return _rounded(mean), _rounded(std)


def _rounded(values: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in values)


def build_method(config: TrainConfig) -> Method:
    """A backbone and its heads, with weights that depend on the seed alone.

    The backbone is drawn first, so that `noneg.evaluation.scores.untrained` can draw it again. The
    global random state is left as it was.
    """
    assert config.channels is not None
    assert config.size is not None
    definition = find_method(config.method)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        backbone = build_backbone(
            config.backbone, channels=config.channels, size=config.size, norm=config.norm
        )
        _check_view_sizes(backbone, config)
        method = definition.build(backbone, feature_width(backbone), config.options)
    if config.norm == "group":
        use_group_norm(method)
    return method


@torch.no_grad()
def _check_view_sizes(backbone: nn.Module, config: TrainConfig) -> None:
    assert config.channels is not None
    assert config.size is not None
    for size in set(view_sizes(config.policy(config.size), config.size)) - {config.size}:
        backbone.eval()
        try:
            backbone(torch.zeros(1, config.channels, size, size))
        except Exception as error:
            raise NonegError(
                f"the backbone {config.backbone} takes images of {config.size} px, and some of the "
                f"views have {size} px: choose --views of one size, or a convolutional backbone"
            ) from error
        finally:
            backbone.train()


def feature_width(backbone: nn.Module) -> int:
    """D of the representations [B, D]."""
    width = backbone.num_features
    assert isinstance(width, int)
    return width


def measure_norms(
    method: Method, images: Images, config: TrainConfig, info: EncoderInfo, most: int = 256
) -> None:
    """Set BatchNorm's statistics to those of the first epoch's first images, at most so many."""
    assert config.size is not None
    index = epoch_order(config.seed, 0, len(images.pixels))[:most]
    views = draw_views(
        torch.from_numpy(images.pixels[index.numpy()]),
        index,
        config.policy(config.size),
        size=config.size,
        seed=config.seed,
        epoch=0,
        mean=info.mean,
        std=info.std,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        measure_statistics(method, lambda: method.embed(views))
