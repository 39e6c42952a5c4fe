"""Data sets by name: the built-in shapes, and torchvision's classification sets."""

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np

from noneg.errors import NonegError
from noneg.images.array import ArraySource
from noneg.images.dataset import DatasetSource
from noneg.images.source import ImageSource

_TRAIN = {"train": True}, {"train": False}
_SPLIT = {"split": "train"}, {"split": "test"}
# Name -> torchvision's class, and its arguments for training and for testing.
_TORCHVISION: dict[str, tuple[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "cifar10": ("CIFAR10", _TRAIN),
    "cifar100": ("CIFAR100", _TRAIN),
    "country211": ("Country211", _SPLIT),
    "dtd": ("DTD", _SPLIT),
    "fashionmnist": ("FashionMNIST", _TRAIN),
    "fgvcaircraft": ("FGVCAircraft", ({"split": "trainval"}, {"split": "test"})),
    "flowers102": ("Flowers102", _SPLIT),
    "food101": ("Food101", _SPLIT),
    "gtsrb": ("GTSRB", _SPLIT),
    "kmnist": ("KMNIST", _TRAIN),
    "mnist": ("MNIST", _TRAIN),
    "oxfordiiitpet": ("OxfordIIITPet", ({"split": "trainval"}, {"split": "test"})),
    "stl10": ("STL10", ({"split": "train+unlabeled"}, {"split": "test"})),
    "svhn": ("SVHN", _SPLIT),
    "usps": ("USPS", _TRAIN),
}

NAMES = ("shapes", *_TORCHVISION)
_SHAPES = {"train": 4000, "test": 1000}


def plain_name(name: str) -> str:
    """The name as it is in `NAMES`: lower case, without hyphens and underscores."""
    return name.lower().replace("_", "").replace("-", "")


def named_source(name: str, split: Literal["train", "test"], seed: int) -> ImageSource:
    """The split of a data set in `NAMES`, downloaded if need be.

    Downloads go to `~/.cache/noneg`, or to where the environment variable NONEG_CACHE says.

    Raises:
        NonegError: it could not be downloaded.
    """
    if name == "shapes":
        return _shapes(split, seed)
    cache = Path(os.environ.get("NONEG_CACHE") or "~/.cache/noneg").expanduser()
    class_name, arguments = _TORCHVISION[name]
    import torchvision.datasets  # takes a second, which no folder of images should wait for

    # torchvision makes the first folder below its root alone.
    try:
        cache.mkdir(parents=True, exist_ok=True)
        dataset = getattr(torchvision.datasets, class_name)(
            cache, download=True, **arguments[split == "test"]
        )
    except (OSError, RuntimeError, EOFError, ImportError) as error:
        raise NonegError(
            f"The data set {name} could not be downloaded to {cache} ({error}): connect to the "
            "network, or give a folder of images instead."
        ) from error
    return DatasetSource(dataset, f"{name}, {split} split", concurrent=True)


def _shapes(split: Literal["train", "test"], seed: int) -> ArraySource:
    from noneg.images.shapes import CLASSES, draw_shapes

    if seed < 0:
        raise NonegError(f"The seed of the shapes is {seed}: give a whole number from 0.")
    if split == "test":
        # A stream of its own: no test image may be a training image of a neighboring seed.
        seed = int(np.random.SeedSequence((seed, 1)).generate_state(1)[0])
    shapes = draw_shapes(_SHAPES[split], seed)
    return ArraySource(
        shapes.pixels.transpose(0, 2, 3, 1),
        "shapes (built in)",
        shapes.labels,
        tuple(CLASSES),
        shapes.factors,
    )
