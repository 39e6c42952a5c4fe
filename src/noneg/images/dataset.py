"""Any map-style torch `Dataset` of images."""

import operator
import statistics
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch.utils.data import Dataset, IterableDataset

from noneg.errors import NonegError
from noneg.images.decode import decode_picture
from noneg.images.resize import array_to_pixels, check_channels, to_uint8
from noneg.images.source import (
    ImageSource,
    Unreadable,
    evenly_spaced,
    is_of_the_machine,
)
from noneg.images.threads import read_readable

_KINDS = (
    "a PIL image, a uint8 tensor or float tensor from 0 to 1 [channels, height, width], or a uint8 "
    "or uint16 array [height, width] or [height, width, channels]"
)


class DatasetSource(ImageSource):
    """A map-style `Dataset` whose items are an image, or (image, label, ...).

    Labels come from the attribute `targets` or `labels` if it has one whole number per item,
    otherwise from the items while they are read. Classes come from the attribute `classes`.

    Args:
        dataset: the data set; its items are read by index.
        description: what messages call the data set.
        thread_safe: whether several threads may read items at the same time. A `Dataset` need not
            support this (torch's loaders use processes), so set it only if its author says so.
        stamp: see `ImageSource.stamp`.

    Raises:
        NonegError: the data set is iterable or has no items.
    """

    advice = "check that dataset[0] works"

    def __init__(
        self,
        dataset: Dataset[Any],
        description: str | None = None,
        thread_safe: bool = False,
        stamp: str | None = None,
    ) -> None:
        """Read the data set's attributes, but no item."""
        self._stamp = stamp
        kind = type(dataset).__name__
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
            raise NonegError(
                f"The data set {kind} has no length or cannot be read by index: give a map-style "
                "Dataset with __len__ and __getitem__, or write the images to a folder."
            )
        self._dataset = dataset
        self._count = len(dataset)
        self._item_lock = nullcontext() if thread_safe else threading.Lock()
        self._item_labels: np.ndarray | None = None
        self._item_labels_lock = threading.Lock()
        self.description = description or f"data set {kind}"
        if self._count == 0:
            raise NonegError(f"The {self.description} has no items: give one with images in it.")
        self.labels = self._attribute_labels()
        # If the attribute has gaps (negative numbers), the items would only repeat them.
        self._labels_from_items = self.labels is None
        if self.labels is not None and int(self.labels.min()) < 0:
            self.labels = None
        classes = getattr(dataset, "classes", None)
        if isinstance(classes, list | tuple) and all(isinstance(name, str) for name in classes):
            self.classes = tuple(classes)

    def __len__(self) -> int:
        """The number of items."""
        return self._count

    def stamp(self) -> str | None:
        """See `ImageSource.stamp`."""
        return self._stamp

    def name(self, index: int) -> str:
        """The index as a string."""
        return str(index)

    def read(
        self, index: int, channels: int, size: int
    ) -> UInt8[np.ndarray, "{channels} {size} {size}"]:
        """Read one item and keep its label; see `ImageSource.read`.

        Raises:
            Unreadable: the data set raised an error for this item.
            NonegError: the item is not an image, or its channels cannot be converted.
        """
        image = self._read_item(index)
        if isinstance(image, Image.Image):
            if channels not in (1, 3):
                raise NonegError(
                    f"{channels} channels were asked for, but the pictures of the "
                    f"{self.description} can only be read with 1 (gray) or 3 (color): let the data "
                    "set return arrays with more channels."
                )
            return decode_picture(image, channels, size)
        array = self._to_array(image, index)
        if 0 in array.shape:
            raise Unreadable(f"no pixels: shape {array.shape}")
        check_channels(array.shape[2], channels, f"image {index} of the {self.description}")
        return array_to_pixels(array, channels, size)

    def natural_channels(self) -> int:
        """The channels of the first image: 1 for a gray picture, 3 for any other picture."""
        return read_readable(self, [0], self._read_channels)[0]

    def natural_size(self) -> int:
        """The median short side of at most 64 images; this reads them."""
        sides = read_readable(self, evenly_spaced(self._count), self._read_short_side)
        return int(statistics.median(sides))

    def _read_channels(self, index: int) -> int:
        image = self._read_item(index)
        if isinstance(image, Image.Image):
            return 1 if image.mode in ("1", "L", "I", "F") or image.mode.startswith("I;16") else 3
        return int(self._to_array(image, index).shape[2])

    def _read_short_side(self, index: int) -> int:
        image = self._read_item(index)
        if isinstance(image, Image.Image):
            return min(image.size)
        return int(min(self._to_array(image, index).shape[:2]))

    def _read_item(self, index: int) -> Any:
        """The image of an item; its label is kept if labels come from the items."""
        try:
            with self._item_lock:
                item = self._dataset[index]
        except NonegError:
            raise
        except Exception as error:
            if is_of_the_machine(error):
                raise
            raise Unreadable(f"{type(error).__name__}: {error}") from error
        if not isinstance(item, tuple | list):
            return item
        if not item:
            raise Unreadable("the item is empty")
        if len(item) > 1 and self._labels_from_items:
            self._keep_label(index, item[1])
        return item[0]

    def _keep_label(self, index: int, label: object) -> None:
        if isinstance(label, torch.Tensor | np.ndarray) and label.ndim > 0:
            return
        try:
            number = operator.index(label)  # type: ignore[arg-type]  # TypeError if it is no integer
        except TypeError:
            return
        if self._item_labels is None and self.labels is None:
            with self._item_labels_lock:
                if self._item_labels is None:
                    self._item_labels = np.full(self._count, -1, dtype=np.int64)
                    self.labels = self._item_labels
        if self._item_labels is not None:
            self._item_labels[index] = number

    def _attribute_labels(self) -> np.ndarray | None:
        if getattr(self._dataset, "target_transform", None) is not None:
            return None  # the labels of the items differ from the attribute
        for attribute in ("targets", "labels"):
            labels = _as_integers(getattr(self._dataset, attribute, None), self._count)
            if labels is not None:
                return labels
        return None

    def _to_array(self, image: Any, index: int) -> UInt8[np.ndarray, "height width channels"]:
        what = f"image {index} of the {self.description}"
        if isinstance(image, torch.Tensor):
            image = image.detach().cpu()
            if image.ndim != 3:
                raise NonegError(
                    f"The {what} is a tensor of shape {tuple(image.shape)}, not {_KINDS}."
                )
            image = image.permute(1, 2, 0)
            if image.is_floating_point():
                return _float_to_uint8(image, what)
            image = image.numpy()
        if not isinstance(image, np.ndarray):
            raise NonegError(
                f"The {what} is a {type(image).__name__}, not {_KINDS}: let the data set return "
                "one of these, or (image, label)."
            )
        if image.ndim not in (2, 3) or image.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
            raise NonegError(
                f"The {what} has dtype {image.dtype} and shape {image.shape}, so it is not "
                f"{_KINDS}: convert it in the data set."
            )
        return to_uint8(image[..., None] if image.ndim == 2 else image)


def _as_integers(values: object, count: int) -> Int64[np.ndarray, " {count}"] | None:
    """int64 [count], or None if `values` is not that many integers."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    if not isinstance(values, np.ndarray | Sequence) or isinstance(values, str | bytes):
        return None
    try:
        array = np.asarray(values)
    except ValueError:  # nested lists of different lengths
        return None
    if array.shape != (count,) or array.dtype.kind not in "iu":
        return None
    return array.astype(np.int64)


def _float_to_uint8(
    image: Float[torch.Tensor, "height width channels"], what: str
) -> UInt8[np.ndarray, "height width channels"]:
    values = image.float()
    if bool(values.isnan().any()):
        raise Unreadable("some of its values are not numbers (NaN)")
    if values.numel() and not (float(values.min()) >= 0 and float(values.max()) <= 1):
        raise NonegError(
            f"The {what} has floating-point values from {float(values.min()):g} to "
            f"{float(values.max()):g}, not from 0 to 1: remove Normalize from the data set's "
            "transform."
        )
    return np.asarray((values * 255).round().to(torch.uint8))
