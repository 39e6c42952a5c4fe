"""Images in a numpy array, a torch tensor, or a .npy or .npz file."""

import hashlib
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped, UInt8

from noneg.errors import MachineError, NonegError, printable
from noneg.images.resize import array_to_pixels, check_channels, to_uint8
from noneg.images.source import ImageSource
from noneg.images.threads import Steps, patiently

# How to convert each kind of dtype, for error messages.
_CONVERSIONS = {
    "f": "for values from 0 to 1, with (images * 255).round().astype('uint8')",
    "b": "with images.astype('uint8') * 255",
    "i": "for values from 0 to 255, with images.astype('uint8')",
    "u": "for values from 0 to 255, with images.astype('uint8')",
}


class ArraySource(ImageSource):
    """Images in one array, uint8 or uint16, channels last.

    Args:
        images: [N, H, W] or [N, H, W, C]; uint16 is read as round(x / 257).
        description: what messages call the array.
        labels: [N], whole numbers from 0.
        classes: the name of each label.
        factors: the random factors that each image was made of, each [N].
        file: that the images were read from, if any.

    Raises:
        NonegError: the dtype, the shape or the labels are wrong, or there is no image.
    """

    def __init__(
        self,
        images: np.ndarray,
        description: str,
        labels: Any = None,
        classes: tuple[str, ...] | None = None,
        factors: Mapping[str, np.ndarray] | None = None,
        file: Path | None = None,
    ) -> None:
        """Check the array, without copying it."""
        self._file = file
        self.description = description
        self._images = _check_images(images, description)
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
        return array_to_pixels(to_uint8(self._images[index]), channels, size)

    def needs_no_conversion(self, channels: int, size: int) -> bool:
        """Whether the images already have these channels and this size."""
        return bool(self._images.shape[1:] == (size, size, channels))

    def read_slice(
        self, start: int, stop: int
    ) -> UInt8[np.ndarray, "images channels height width"]:
        """Images `start` to `stop`, with the channels and the size that they have."""
        # Always a copy: the caller keeps it, and the owner of the array may change the array.
        return np.array(to_uint8(self._images[start:stop]).transpose(0, 3, 1, 2), order="C")

    def stamp(self) -> str | None:
        """See `ImageSource.stamp`; for an array in memory, a digest of it."""
        if self._file is not None:
            status = os.stat(self._file)
            return f"{status.st_size} {status.st_mtime_ns}"
        digest = hashlib.blake2b(repr(self._images.shape).encode(), digest_size=16)
        for image in self._images:
            digest.update(np.ascontiguousarray(image).data)
        return digest.hexdigest()

    def natural_channels(self) -> int:
        """The array's channels; one for a grayscale array."""
        return int(self._images.shape[3])

    def natural_size(self) -> int:
        """The array's short side."""
        return int(min(self._images.shape[1:3]))


def tensor_source(images: torch.Tensor) -> ArraySource:
    """A source of the images in a tensor [N, H, W] or [N, C, H, W], uint8 or uint16.

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
                f"The {description} seems to have its channels last, but tensors are read as "
                "[N, channels, height, width]: give images.permute(0, 3, 1, 2)."
            )
        array = array.permute(0, 2, 3, 1)
    return ArraySource(array.numpy(), description)


def numpy_source(images: np.ndarray) -> ArraySource:
    """A source of the images in a numpy array [N, H, W] or [N, H, W, C]; see `ArraySource`."""
    return ArraySource(images, f"array of shape {images.shape}")


def file_source(path: Path) -> ArraySource:
    """A source of the images in a .npy file or a .npz file.

    The labels of `NAME.npy` are in `NAME.labels.npy`, if that file exists. A .npz file holds the
    arrays `images` and, optionally, `labels`.

    Raises:
        NonegError: the file is neither of the two, is broken, or see `ArraySource`.
    """
    description = f"file {printable(str(path))}"
    extension = path.suffix.lower()
    if extension == ".npy":
        labels_path = path.with_suffix(".labels.npy")
        labels = _load_npy(labels_path) if labels_path.is_file() else None
        return ArraySource(_load_npy(path, memory_map=True), description, labels, file=path)
    if extension == ".npz":
        images, labels = _load_npz(path)
        return ArraySource(images, description, labels, file=path)
    raise NonegError(
        f"The {description} is neither .npy nor .npz: give the folder that holds the images, "
        "or save them as one array with np.save."
    )


def as_labels(labels: Any, count: int, what: str) -> np.ndarray:
    """A sequence, array or tensor of labels -> int64 [count].

    Args:
        labels: whole numbers from 0, one per image.
        count: the number of images.
        what: the images, for messages.

    Raises:
        NonegError: there is not one label per image, or they are not whole numbers from 0.
    """
    if isinstance(labels, torch.Tensor):
        labels = labels.detach().cpu().numpy()
    array = np.asarray(labels)
    if array.ndim != 1 or len(array) != count:
        found = f"{len(array)} labels" if array.ndim == 1 else f"labels of shape {array.shape}"
        raise NonegError(f"The {what} has {count} images but {found}: give one label per image.")
    if array.dtype.kind not in "iu":
        raise NonegError(
            f"The labels of the {what} have dtype {array.dtype}, but they must be whole numbers "
            "from 0: convert them with np.unique(labels, return_inverse=True)[1]."
        )
    if int(array.min()) < 0:
        raise NonegError(
            f"The smallest label of the {what} is {array.min()}, but labels are whole numbers from "
            "0: give labels from 0, or no labels."
        )
    return array.astype(np.int64)


def _check_images(
    images: np.ndarray, what: str
) -> Shaped[np.ndarray, "images height width channels"]:
    # Files may have the other byte order, which is a different dtype.
    dtype = images.dtype.newbyteorder("=")
    if dtype not in (np.uint8, np.uint16):
        conversion = _CONVERSIONS.get(images.dtype.kind, "to numbers from 0 to 255")
        raise NonegError(
            f"The {what} has dtype {images.dtype}, but images must be uint8 or uint16: convert "
            f"it, {conversion}."
        )
    if images.ndim not in (3, 4):
        raise NonegError(
            f"The {what} has shape {images.shape}, but it must be [N, height, width] or "
            "[N, height, width, channels]: reshape it, or give a single image as images[None]."
        )
    if 0 in images.shape:
        raise NonegError(
            f"The {what} has shape {images.shape}, so it has no pixels: give at least one image."
        )
    if images.ndim == 4 and images.shape[1] <= 4 < images.shape[3]:
        raise NonegError(
            f"The {what} has shape {images.shape}, so it seems to have its channels first, but "
            "arrays are read as [N, height, width, channels]: give images.transpose(0, 2, 3, 1)."
        )
    if dtype == np.uint16:
        _warn_if_dark(int(images.max()), what)
    return images[..., None] if images.ndim == 3 else images


def _warn_if_dark(largest: int, what: str) -> None:
    if 0 < largest < 65535 / 16:
        warnings.warn(
            f"The largest value of the {what} is {largest}, but uint16 goes up to 65535, so the "
            f"images will be nearly black. Multiply the array by {65535 // largest} to fill the "
            "range.",
            stacklevel=2,
        )


def _load_npy(path: Path, memory_map: bool = False) -> np.ndarray:
    def load(steps: Steps) -> Any:
        steps.place = str(path)
        return np.load(path, mmap_mode="r" if memory_map else None, allow_pickle=False)

    try:
        loaded = patiently(load)
    except MachineError:
        raise
    except Exception as error:  # of a damaged header, almost any
        raise _not_loadable(path, error) from error
    if not isinstance(loaded, np.ndarray):
        loaded.close()
        raise _not_loadable(path, "it is a .npz file with another name")
    return loaded


def _load_npz(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if isinstance(arrays, np.ndarray):
                raise ValueError("it is a .npy file with another name")
            if "images" not in arrays:
                found = printable(", ".join(arrays.files)) or "nothing"
                raise NonegError(
                    f"The file {printable(str(path))} holds {found}, but no array named images: "
                    "save it with np.savez(path, images=..., labels=...)."
                )
            return arrays["images"], arrays.get("labels")
    except NonegError:
        raise
    except Exception as error:  # of a damaged archive, almost any
        raise _not_loadable(path, error) from error


def _not_loadable(path: Path, reason: object) -> NonegError:
    return NonegError(
        f"The file {printable(str(path))} cannot be loaded ({_in_short(reason)}): save it again "
        "with np.save (.npy) or np.savez (.npz), as numbers, not as objects."
    )


def _in_short(reason: object) -> str:
    return printable(" ".join(str(reason).split())[:200]) or type(reason).__name__
