"""The images of a run: where they are kept, which ones are for scoring, and their statistics."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8

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
from noneg.records.directory import RunDirectory
from noneg.training.config import TrainConfig
from noneg.training.plan import Plan, choose_batch_size, stored_size


def load_for_training(
    source: ImageSource,
    plan: Plan,
    run: RunDirectory,
    *,
    teacher_size: int = 0,
    progress: bool = False,
) -> Images:
    """Decode all images once, or on demand if they fit neither into memory nor on disk.

    Args:
        source: the images.
        plan: of the run.
        run: its directory, for a file of images.
        teacher_size: side of the images for a teacher, in pixels: as large as they are, up to it.
        progress: show a progress bar.

    Raises:
        NonegError: no image is readable, or fewer than one batch.
    """
    natural = source.natural_size()
    size = max(stored_size(plan.size, natural), min(teacher_size, natural))
    place = plan.config.cache
    if place == "auto":
        place = choose_cache(len(source) * plan.channels * size * size, run.path)
    strict = plan.config.strict
    if place == "none":
        images = images_on_demand(source, channels=plan.channels, size=size, strict=strict)
    else:
        images = load_images(
            source,
            channels=plan.channels,
            size=size,
            strict=strict,
            cache_file=run.pixels_file,
            in_memory=place == "memory",
            progress=progress,
        )
    count = len(images.pixels)
    if count < plan.batch_size:
        raise NonegError(
            f"{source.description} has {count} readable images, fewer than one batch of "
            f"{plan.batch_size}: give more images, or "
            f"--batch-size {choose_batch_size(count, plan.batch_size)}"
        )
    return images


def choose_cache(needed: int, directory: Path) -> Literal["memory", "disk", "none"]:
    """Where `needed` bytes of decoded images can be kept during a run."""
    if fits_in_memory(needed):
        return "memory"
    # Leave half of the disk to checkpoints and other programs.
    return "disk" if needed <= free_disk(directory) // 2 else "none"


def free_disk(directory: Path) -> int:
    """Free bytes on the disk of a directory."""
    return shutil.disk_usage(directory).free


def load_for_evaluation(
    config: TrainConfig, images: Images, eval_data: Any, eval_labels: Any
) -> tuple[Images, Images] | None:
    """Labeled images to learn from and to test on; None if there are no labels.

    The test images are `eval_data`, else the test split of a named data set, else a fifth of the
    training images. The probes learn from the training images if these have labels.

    Raises:
        NonegError: `eval_data` has no labels.
    """
    test = None
    is_named_set = not Path(config.data).exists() and is_data_set(config.data)
    if eval_data is not None or is_named_set:
        wanted = config.data if eval_data is None else eval_data
        source = find_source(wanted, labels=eval_labels, split="test")
        test = load_images(source, channels=images.pixels.shape[1], size=images.pixels.shape[-1])
        if test.labels is None and eval_data is not None:
            raise NonegError(
                f"{source.description} has no labels to score with: --eval-data needs one "
                "subfolder per class, or a .npz with images and labels"
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
    """Mean and std of each channel, for pixels in [0, 1], over at most `most` images."""
    chosen = np.arange(0, len(pixels), max(1, -(-len(pixels) // most)))
    means, squares = [], []
    for start in range(0, len(chosen), 100):
        block = pixels[chosen[start : start + 100]].astype(np.float64) / 255
        means.append(block.mean(axis=(2, 3)))
        squares.append(np.square(block).mean(axis=(2, 3)))
    mean = np.concatenate(means).mean(axis=0)
    variance = np.concatenate(squares).mean(axis=0) - mean**2
    # The std of images of one color is 0, and normalization divides by it.
    std = np.sqrt(np.maximum(variance, 1 / 255**2))
    return _rounded(mean), _rounded(std)


def _rounded(values: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in values)
