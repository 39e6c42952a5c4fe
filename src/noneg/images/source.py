"""The interface that every source of images implements, and the errors about its images."""

import errno
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from noneg.errors import MachineError, NonegError, printable


class Unreadable(Exception):  # noqa: N818  (it is about one image, not a failure of the run)
    """One image cannot be used. `str(error)` is the reason, short enough for a table."""


_OF_THE_MACHINE = frozenset(
    getattr(errno, name)
    for name in (
        *("EMFILE", "ENFILE", "ENOMEM", "ENOBUFS", "ENODEV", "ENXIO"),
        *("ESTALE", "ENOTCONN", "ETIMEDOUT", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN"),
        *("ENETUNREACH", "ECONNRESET", "ECONNREFUSED", "ECONNABORTED", "ESHUTDOWN"),
    )
    if hasattr(errno, name)
)


def is_of_the_machine(error: BaseException) -> bool:
    """Whether not the image is at fault but the machine, so that no other can be read either.

    Without this, a lost network disk would look like a folder of broken images.
    """
    return isinstance(error, OSError) and error.errno in _OF_THE_MACHINE


def machine_error(error: OSError, what: str) -> MachineError:
    """The error for an image that could not be read because of the machine."""
    return MachineError(
        f"{printable(what)} cannot be read ({error.strerror}): see to the disk or the network"
    )


@dataclass(frozen=True)
class Skipped:
    """An image that was left out, and the reason."""

    name: str
    reason: str


class ImageSource(ABC):
    """Images that can be read one by one, from any thread.

    Attributes:
        description: where the images come from, for messages ("folder cifar10/train").
        labels: int64 [N], only used for evaluation; a negative number is an image without a label.
            None if no label is known. A `Dataset` that gives labels only together with its images
            fills this in while it is read.
        classes: the name of each label, if known.
        factors: the random factors that each image was made of, each [N]; only for the built-in
            shapes.
        advice: what to check if no image can be read.
    """

    description: str
    labels: np.ndarray | None = None
    classes: tuple[str, ...] | None = None
    factors: Mapping[str, np.ndarray] | None = None
    advice: str = "check that they open in an image viewer"

    @abstractmethod
    def __len__(self) -> int:
        """The number of images, readable or not."""

    @abstractmethod
    def name(self, index: int) -> str:
        """The image's name for messages: its relative path with forward slashes, or its index."""

    @abstractmethod
    def read(
        self, index: int, channels: int, size: int
    ) -> UInt8[np.ndarray, "{channels} {size} {size}"]:
        """Decode one image, resize its short side to `size` pixels and crop the central square.

        Returns:
            uint8 [channels, size, size]

        Raises:
            Unreadable: this image cannot be used.
            NonegError: no image of this source can be given with these channels.
        """

    def stamp(self) -> str | None:
        """A text that is another one if the images are others, found without reading them.

        None if only reading them could tell. Names, sizes and times of change count.
        """
        return None

    @abstractmethod
    def natural_channels(self) -> int:
        """The number of channels to use by default."""

    @abstractmethod
    def natural_size(self) -> int:
        """The median short side, in pixels, of at most 64 images, evenly spaced in the source."""


def evenly_spaced(count: int, limit: int = 64) -> list[int]:
    """At most `limit` indices, evenly spaced over `count` images."""
    return sorted({int(index) for index in np.linspace(0, count - 1, min(count, limit))})


def check_channels_and_size(channels: int, size: int) -> None:
    """Raise NonegError unless `channels` and `size` are positive."""
    if channels < 1 or size < 1:
        raise NonegError(
            f"{channels} channels of {size} x {size} pixels were asked for: both must be at "
            "least 1."
        )


def none_readable_error(source: ImageSource, first: Skipped, tried: int) -> NonegError:
    """The error if none of the `tried` images can be read; `first` is the first of them."""
    return NonegError(
        f"None of the {tried} images tried in the {source.description} can be read (for example, "
        f"{printable(first.name)}: {printable(first.reason)}): {source.advice}."
    )


def unreadable_error(source: ImageSource, image: Skipped) -> NonegError:
    """The error for an unreadable image if no image may be left out."""
    return NonegError(
        f"The image {printable(image.name)} of the {source.description} cannot be read "
        f"({printable(image.reason)}): fix or remove it, or turn strict off to leave it out."
    )
