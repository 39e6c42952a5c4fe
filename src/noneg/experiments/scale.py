"""The size of the runs: a laptop can run a whole study, and a test can run a quick one."""

from pathlib import Path
from typing import Any, Final

import numpy as np

from noneg.files import whole_or_not_at_all
from noneg.images import find_source
from noneg.images.shapes import draw_shapes

STANDARD: Final[dict[str, Any]] = {
    "backbone": "small_resnet",
    "size": 32,
    "batch_size": 64,
    "epochs": 4,
    "optimizer": "adamw",
    "learning_rate": 0.012,
    "weight_decay": 1e-4,
    "warmup_epochs": 0.3,
    "evaluation_images": 2_000,
    "checkpoint_every": 100,
}
"""The learning rate is for batches of 256; at 64 images per step it is 3e-3."""

QUICK: Final[dict[str, Any]] = {
    **STANDARD,
    "size": 16,
    "batch_size": 32,
    "epochs": 2,
    "evaluation_images": 100,
    "log_every": 4,
}

HEADS: Final[dict[str, Any]] = {
    "projector": [256, 128],
    "predictor_hidden": 128,
    "covariance": 1.0,
    "tau": 0.98,
}
"""Options that suit a small backbone; a method ignores those that it does not have.

The covariance weight is the paper's. That of VICReg's small recipe suits a wider projector, as the
recipes of Muon have a weight decay and a tau of their own.
"""

_IMAGES, _TEST_IMAGES = 4_000, 1_000
_QUICK_IMAGES, _QUICK_TEST_IMAGES = 128, 100


def built_in_images(directory: Path, quick: bool) -> tuple[Path, Path]:
    """The files of `shapes`, for training and for testing, drawn once for all runs."""
    counts = (_QUICK_IMAGES, _QUICK_TEST_IMAGES) if quick else (_IMAGES, _TEST_IMAGES)
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for split, count in zip(("train", "test"), counts, strict=True):
        path = directory / f"shapes-{split}-{count}.npz"
        if not path.exists():
            if quick:
                drawn = draw_shapes(count, seed=0 if split == "train" else 1)
                images, labels = drawn.pixels.transpose(0, 2, 3, 1), drawn.labels
            else:
                source = find_source("shapes", split="train" if split == "train" else "test")
                images = np.stack([source.read(i, 3, 32) for i in range(len(source))])
                images = images.transpose(0, 2, 3, 1)
                assert source.labels is not None
                labels = source.labels
            with whole_or_not_at_all(path) as unfinished, unfinished.open("wb") as file:
                np.savez(file, images=images, labels=labels)
        paths.append(path)
    return paths[0], paths[1]
