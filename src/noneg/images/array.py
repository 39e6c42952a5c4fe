"""Images in a numpy array, a torch tensor, or a .npy or .npz file."""

import statistics
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped, UInt8

from noneg.errors import NonegError
from noneg.images.resize import array_to_pixels, check_channels, sixteen_to_eight_bit
from noneg.images.source import ImageSource, printable

_CONVERSIONS = {
    "f": "if it runs from 0 to 1, by (images * 255).round().astype('uint8')",
    "b": "by images.astype('uint8') * 255",
    "i": "if it runs from 0 to 255, by images.astype('uint8')",
    "u": "if it runs from 0 to 255, by images.astype('uint8')",
}


class ArraySource(ImageSource):
    """Images in one array, uint8 or uint16, channels last.

    Args:
        images: [N, H, W] or [N, H, W, C]; uint16 is read as round(x / 257).
        description: what to call it.
        labels: [N], whole numbers from 0.
        classes: the name of each label.
        factors: what each image was drawn from, each [N].

    Raises:
        NonegError: wrong dtype, wrong shape, no image, or labels that do not fit.
    """

    def __init__(
        self,
        images: np.ndarray,
        description: str,
        labels: Any = None,
        classes: tuple[str, ...] | None = None,
        factors: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Check the array; nothing is copied."""
        self.description = description
        self._images = _checked(images, description)
        self.labels = None if labels is None else as_labels(labels, len(images), description)
        self.classes = classes
        self.factors = factors

    def __len__(self) -> int:
        """The number of images."""
        return len(self._images)

    def name(self, index: int) -> str:
        """The index as a string."""
        return str(index)

    def read(
        self, index: int, channels: int, size: int
    ) -> UInt8[np.ndarray, "{channels} {size} {size}"]:
        """One image; see `ImageSource.read`."""
        check_channels(self.natural_channels(), channels, self.description)
        return array_to_pixels(_eight_bit(self._images[index]), channels, size)

    def has_form(self, channels: int, size: int) -> bool:
        """Whether the images have that size and those channels already."""
        return bool(self._images.shape[1:] == (size, size, channels))

    def block(self, start: int, stop: int) -> UInt8[np.ndarray, "images channels height width"]:
        """Images start to stop at once, in the form they have."""
        # A copy in every case: the caller keeps it, and the array may be changed by its owner.
        return np.array(_eight_bit(self._images[start:stop]).transpose(0, 3, 1, 2), order="C")

    def natural_channels(self) -> int:
        """The array's channels; one for a gray array."""
        return int(self._images.shape[3])

    def natural_size(self) -> int:
        """The array's short side."""
        return int(statistics.median([min(self._images.shape[1:3])]))


def tensor_source(images: torch.Tensor) -> ArraySource:
    """A source over a tensor [N, H, W] or [N, C, H, W], uint8 or uint16.

    Raises:
        NonegError: see `ArraySource`.
    """
    array = images.detach().cpu().resolve_conj().resolve_neg()
    shape = tuple(array.shape)
    description = f"tensor of shape {shape}"
    if array.dtype == torch.bfloat16:
        array = array.float()
    if array.ndim == 4:
        if shape[1] > 4 and shape[3] <= 4:
            raise NonegError(
                f"The {description} looks as if its channels came last; tensors are read as "
                "[images, channels, height, width]: give images.permute(0, 3, 1, 2)."
            )
        array = array.permute(0, 2, 3, 1)
    return ArraySource(array.numpy(), description)


def numpy_source(images: np.ndarray) -> ArraySource:
    """A source over a numpy array [N, H, W] or [N, H, W, C]; see `ArraySource`."""
    return ArraySource(images, f"array of shape {images.shape}")


def file_source(path: Path) -> ArraySource:
    """A source over `NAME.npy` (labels in `NAME.labels.npy`, if there) or a .npz.

    A .npz holds `images` and, optionally, `labels`.

    Raises:
        NonegError: neither of the two, broken, or see `ArraySource`.
    """
    description = f"file {printable(str(path))}"
    ending = path.suffix.lower()
    if ending == ".npy":
        beside = path.with_suffix(".labels.npy")
        labels = _load(beside) if beside.is_file() else None
        return ArraySource(_load(path, memory_map=True), description, labels)
    if ending == ".npz":
        images, labels = _load_members(path)
        return ArraySource(images, description, labels)
    raise NonegError(
        f"The {description} is neither .npy nor .npz: give the folder that holds the images, "
        "or save them as one array by np.save."
    )


def as_labels(labels: Any, count: int, what: str) -> np.ndarray:
    """Labels in any form -> int64 [count].

    Raises:
        NonegError: another number of labels than images, or not whole numbers from 0.
    """
    if isinstance(labels, torch.Tensor):
        labels = labels.detach().cpu().numpy()
    array = np.asarray(labels)
    if array.ndim != 1 or len(array) != count:
        found = f"{len(array)} labels" if array.ndim == 1 else f"labels of shape {array.shape}"
        raise NonegError(
            f"The {what} has {count} images but {found}: give one label for each image."
        )
    if array.dtype.kind not in "iu":
        raise NonegError(
            f"The labels of the {what} are of dtype {array.dtype}, not whole numbers from 0: "
            "convert them by np.unique(labels, return_inverse=True)[1]."
        )
    if int(array.min()) < 0:
        raise NonegError(
            f"The labels of the {what} go down to {array.min()}, but classes are counted from 0: "
            "give labels from 0, or none."
        )
    return array.astype(np.int64)


def integers(values: object, count: int) -> np.ndarray | None:
    """int64 [count] if that is what `values` is, else None."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    if not isinstance(values, np.ndarray | Sequence) or isinstance(values, str | bytes):
        return None
    try:
        array = np.asarray(values)
    except ValueError:  # ragged: something else than labels
        return None
    if array.shape != (count,) or array.dtype.kind not in "iu":
        return None
    return array.astype(np.int64)


def _checked(images: np.ndarray, what: str) -> Shaped[np.ndarray, "images height width channels"]:
    # Files may hold the other byte order, which is another dtype.
    dtype = images.dtype.newbyteorder("=")
    if dtype not in (np.uint8, np.uint16):
        way_out = _CONVERSIONS.get(images.dtype.kind, "into numbers from 0 to 255")
        raise NonegError(
            f"The {what} has dtype {images.dtype}, and images are uint8 or uint16: convert it, "
            f"{way_out}."
        )
    if images.ndim not in (3, 4):
        raise NonegError(
            f"The {what} has shape {images.shape}, and images are [N, height, width] or "
            "[N, height, width, channels]: reshape it, or give one image as images[None]."
        )
    if 0 in images.shape:
        raise NonegError(
            f"The {what} has shape {images.shape}, which holds no pixels: give at least one image."
        )
    if images.ndim == 4 and images.shape[1] <= 4 < images.shape[3]:
        raise NonegError(
            f"The {what} has shape {images.shape}, which looks as if channels came first; arrays "
            "are read as [N, height, width, channels]: give images.transpose(0, 2, 3, 1)."
        )
    if dtype == np.uint16:
        _warn_if_dark(int(images.max()), what)
    return images[..., None] if images.ndim == 3 else images


def _warn_if_dark(largest: int, what: str) -> None:
    if 0 < largest < 65535 / 16:
        warnings.warn(
            f"The largest value of the {what} is {largest}, of 65535 that uint16 can hold: the "
            f"images will be nearly black. Multiply the array by {65535 // largest} so "
            "that it fills the range.",
            stacklevel=2,
        )


def _eight_bit(values: np.ndarray) -> np.ndarray:
    return values if values.dtype == np.uint8 else sixteen_to_eight_bit(values)


def _load(path: Path, memory_map: bool = False) -> np.ndarray:
    try:
        loaded = np.load(path, mmap_mode="r" if memory_map else None, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise _not_loadable(path, error) from error
    if not isinstance(loaded, np.ndarray):
        loaded.close()
        raise _not_loadable(path, "it is a .npz under another name")
    return loaded


def _load_members(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        with np.load(path, allow_pickle=False) as members:
            if isinstance(members, np.ndarray):
                raise ValueError("it is a .npy under another name")
            if "images" not in members:
                raise NonegError(
                    f"The file {printable(str(path))} holds {', '.join(members.files) or 'nothing'}"
                    ", but no array named images: save by np.savez(path, images=..., labels=...)."
                )
            return members["images"], members.get("labels")
    except (ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise _not_loadable(path, error) from error


def _not_loadable(path: Path, reason: object) -> NonegError:
    return NonegError(
        f"The file {printable(str(path))} cannot be loaded ({reason}): save it again by np.save "
        "for .npy or np.savez for .npz, as numbers, not objects."
    )
