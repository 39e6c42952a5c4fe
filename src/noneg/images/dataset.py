"""Any map-style torch `Dataset` of images."""

import operator
import statistics
import threading
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch.utils.data import Dataset, IterableDataset

from noneg.errors import NonegError
from noneg.images.array import integers
from noneg.images.decode import decode_picture
from noneg.images.resize import array_to_pixels, check_channels, sixteen_to_eight_bit
from noneg.images.source import ImageSource, Unreadable, spread

_KINDS = (
    "a PIL image, a uint8 tensor or float tensor from 0 to 1 [channels, height, width], or a uint8 "
    "or uint16 array [height, width] or [height, width, channels]"
)


class DatasetSource(ImageSource):
    """A map-style `Dataset` whose items are an image, or (image, label, ...).

    Labels come from the attribute `targets` or `labels` where it holds one whole number for each
    item, otherwise from the items while they are read; classes from the attribute `classes`.

    Args:
        dataset: the data set; items are taken from it by index.
        description: what to call it.
        concurrent: whether several threads may take items at once. A `Dataset` need not allow it
            (torch's loaders use processes), so nobody but the data set's author should say so.

    Raises:
        NonegError: an iterable data set, or one without items.
    """

    def __init__(
        self, dataset: Dataset[Any], description: str | None = None, concurrent: bool = False
    ) -> None:
        """Look at the data set's attributes; no item is taken yet."""
        kind = type(dataset).__name__
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
            raise NonegError(
                f"The data set {kind} has no length or cannot be read by index: give a map-style "
                "Dataset with __len__ and __getitem__, or write the images to a folder."
            )
        self._dataset = dataset
        self._count = len(dataset)
        self._turn = nullcontext() if concurrent else threading.Lock()
        self._item_labels: np.ndarray | None = None
        self._allocating = threading.Lock()
        self.description = description or f"data set {kind}"
        if self._count == 0:
            raise NonegError(f"The {self.description} has no items: give one with images in it.")
        self.labels = self._attribute_labels()
        # An attribute with gaps is still the better witness: the items would only repeat it.
        self._ask_items = self.labels is None
        if self.labels is not None and int(self.labels.min()) < 0:
            self.labels = None
        classes = getattr(dataset, "classes", None)
        if isinstance(classes, list | tuple) and all(isinstance(name, str) for name in classes):
            self.classes = tuple(classes)

    def __len__(self) -> int:
        """The number of items."""
        return self._count

    def name(self, index: int) -> str:
        """The index as a string."""
        return str(index)

    def read(
        self, index: int, channels: int, size: int
    ) -> UInt8[np.ndarray, "{channels} {size} {size}"]:
        """Take one item and keep its label; see `ImageSource.read`.

        Raises:
            Unreadable: the data set raised an error for this item.
            NonegError: the item is of a kind that cannot be an image, or of other channels.
        """
        image = self._take(index)
        if isinstance(image, Image.Image):
            if channels not in (1, 3):
                raise NonegError(
                    f"{channels} channels were asked for, but the pictures of the "
                    f"{self.description} can be read with 1 (gray) or 3 (color): give arrays for "
                    "more."
                )
            return decode_picture(image, channels, size)
        pixels = self._channels_last(image, index)
        if 0 in pixels.shape:
            raise Unreadable(f"no pixels: shape {pixels.shape}")
        check_channels(pixels.shape[2], channels, f"image {index} of the {self.description}")
        return array_to_pixels(pixels, channels, size)

    def natural_channels(self) -> int:
        """The first image's channels: 1 for a gray picture, 3 for any other."""
        image = self._first_readable(1)[0]
        if isinstance(image, Image.Image):
            return 1 if image.mode in ("1", "L", "I", "F") or image.mode.startswith("I;16") else 3
        return int(self._channels_last(image, 0).shape[2])

    def natural_size(self) -> int:
        """The median short side of at most 64 images; they are read for it."""
        sides = [
            min(
                image.size
                if isinstance(image, Image.Image)
                else self._channels_last(image, 0).shape[:2]
            )
            for image in self._first_readable(64)
        ]
        return int(statistics.median(sides))

    def _attribute_labels(self) -> np.ndarray | None:
        if getattr(self._dataset, "target_transform", None) is not None:
            return None  # the attribute is not what the items say
        for attribute in ("targets", "labels"):
            labels = integers(getattr(self._dataset, attribute, None), self._count)
            if labels is not None:
                return labels
        return None

    def _first_readable(self, most: int) -> list[Any]:
        """Images of at most `most` items spread over the set, those with errors left out."""
        images, reason = [], ""
        for index in spread(self._count, most):
            try:
                images.append(self._take(index))
            except Unreadable as error:
                reason = reason or str(error)
        if not images:
            raise NonegError(
                f"None of the images looked at in the {self.description} can be read ({reason}): "
                "check that dataset[0] works."
            )
        return images

    def _take(self, index: int) -> Any:
        try:
            with self._turn:
                item = self._dataset[index]
        except NonegError:
            raise
        except Exception as error:
            raise Unreadable(f"{type(error).__name__}: {error}") from error
        if not isinstance(item, tuple | list):
            return item
        if not item:
            raise Unreadable("the item is empty")
        if len(item) > 1 and self._ask_items:
            self._keep_label(index, item[1])
        return item[0]

    def _keep_label(self, index: int, label: object) -> None:
        if isinstance(label, torch.Tensor | np.ndarray) and (label.ndim > 0):
            return
        try:
            number = operator.index(label)  # type: ignore[arg-type]  # the question is whether it is one
        except TypeError:
            return
        if self._item_labels is None and self.labels is None:
            with self._allocating:
                if self._item_labels is None:
                    self._item_labels = np.full(self._count, -1, dtype=np.int64)
                    self.labels = self._item_labels
        if self._item_labels is not None:
            self._item_labels[index] = number

    def _channels_last(self, image: Any, index: int) -> UInt8[np.ndarray, "height width channels"]:
        what = f"image {index} of the {self.description}"
        if isinstance(image, torch.Tensor):
            image = image.detach().cpu()
            if image.ndim != 3:
                raise NonegError(
                    f"The {what} is a tensor of shape {tuple(image.shape)}, not {_KINDS}."
                )
            image = image.permute(1, 2, 0)
            if image.is_floating_point():
                return _float_to_eight_bit(image, what)
            image = image.numpy()
        if not isinstance(image, np.ndarray):
            raise NonegError(
                f"The {what} is a {type(image).__name__}, not {_KINDS}: let the data set return "
                "one of these, alone or as (image, label)."
            )
        if image.ndim not in (2, 3) or image.dtype.newbyteorder("=") not in (
            np.uint8,
            np.uint16,
        ):
            raise NonegError(
                f"The {what} has dtype {image.dtype} and shape {image.shape}, and is not {_KINDS}: "
                "convert it in the data set."
            )
        if image.dtype != np.uint8:
            image = sixteen_to_eight_bit(image)
        pixels: np.ndarray = image[..., None] if image.ndim == 2 else image
        return pixels


def _float_to_eight_bit(
    image: torch.Tensor, what: str
) -> UInt8[np.ndarray, "height width channels"]:
    values = image.float()
    if values.numel() and not (float(values.min()) >= 0 and float(values.max()) <= 1):
        raise NonegError(
            f"The {what} has floating-point values from {float(values.min()):g} to "
            f"{float(values.max()):g}, not from 0 to 1: leave Normalize out of the data set's "
            "transform."
        )
    return np.asarray((values * 255).round().to(torch.uint8))
