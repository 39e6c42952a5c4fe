"""Data sets by name: the built-in shapes, and torchvision's classification data sets."""

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np

from noneg.errors import NonegError
from noneg.files import locked
from noneg.images.array import ArraySource
from noneg.images.dataset import DatasetSource
from noneg.images.source import ImageSource

_TRAIN = {"train": True}, {"train": False}
_SPLIT = {"split": "train"}, {"split": "test"}
# Name -> torchvision's class, and its arguments for the training split and the test split.
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

DATA_SETS = ("shapes", *_TORCHVISION)
_SHAPES_COUNT = {"train": 4000, "test": 1000}


def is_data_set(name: str) -> bool:
    """Whether `name` means a data set; an existing path goes before a data set's name."""
    return _lookup_key(name) in DATA_SETS and not Path(name).exists()


def named_source(name: str, split: Literal["train", "test"], seed: int) -> ImageSource:
    """A split of a named data set, downloaded if necessary.

    Downloads go to `~/.cache/noneg`, or to the folder in the environment variable NONEG_CACHE.

    Args:
        name: one of `DATA_SETS`, in any case, with or without hyphens and underscores.
        split: "train" or "test".
        seed: from 0; only for the shapes.

    Raises:
        NonegError: the data set cannot be downloaded.
    """
    key = _lookup_key(name)
    if key == "shapes":
        return _shapes(split, seed)
    cache = Path(os.environ.get("NONEG_CACHE") or "~/.cache/noneg").expanduser()
    class_name, arguments = _TORCHVISION[key]
    import torchvision.datasets  # takes a second, so a folder of images should not wait for it

    try:
        # torchvision creates a folder only if its parent folder exists.
        cache.mkdir(parents=True, exist_ok=True)
        # Every process of a run asks for it, and torchvision writes straight into its files.
        with locked(cache / f"{key}.lock", wait=True):
            dataset = getattr(torchvision.datasets, class_name)(
                cache, download=True, **arguments[split == "test"]
            )
    except (OSError, RuntimeError, EOFError, ImportError) as error:
        raise NonegError(
            f"The data set {key} could not be downloaded to {cache} ({error}): connect to the "
            "network, or give a folder of images instead."
        ) from error
    # torchvision checks the digests of what it downloads: a name always means the same images.
    return DatasetSource(dataset, f"{key}, {split} split", thread_safe=True, stamp=f"{key} {split}")


def _lookup_key(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _shapes(split: Literal["train", "test"], seed: int) -> ArraySource:
    from noneg.images.shapes import draw_shapes
    from noneg.images.silhouettes import CLASSES

    if seed < 0:
        raise NonegError(f"The seed of the shapes is {seed}: give a whole number from 0.")
    if split == "test":
        # A hashed seed, so that no test image is a training image of another small seed.
        seed = int(np.random.SeedSequence((seed, 1)).generate_state(1)[0])
    shapes = draw_shapes(_SHAPES_COUNT[split], seed)
    return ArraySource(
        shapes.pixels.transpose(0, 2, 3, 1),
        "shapes (built in)",
        shapes.labels,
        CLASSES,
        shapes.factors,
    )
