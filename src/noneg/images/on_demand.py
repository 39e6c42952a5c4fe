"""Images that are decoded each time they are needed, for sets that fit neither memory nor disk."""

import threading
from concurrent.futures import Future
from typing import final

import numpy as np
from jaxtyping import Int64, UInt8

from noneg.errors import MachineError, printable
from noneg.images.reading import reading_threads
from noneg.images.source import (
    ImageSource,
    Skipped,
    Unreadable,
    check_channels_and_size,
    none_readable_error,
    unreadable_error,
)
from noneg.images.threads import ReadingThreads

Image = UInt8[np.ndarray, "channels size size"]


@final
class PixelsOnDemand:
    """Used like an array uint8 [N, channels, size, size]; indexing decodes images in threads.

    The next readable image replaces an unreadable one, so that batches stay whole.

    Attributes:
        shape: the shape of the array.
    """

    def __init__(self, source: ImageSource, channels: int, size: int, strict: bool = False) -> None:
        """Read nothing yet. If `strict`, an unreadable image is an error and is not replaced."""
        check_channels_and_size(channels, size)
        self.shape = (len(source), channels, size, size)
        self._source = source
        self._strict = strict
        self._unreadable: dict[int, Skipped] = {}
        self._any_read = False
        self._lock = threading.Lock()
        self._threads = ReadingThreads(source, reading_threads())
        self._prefetched: dict[int, Future[Image]] = {}

    def __len__(self) -> int:
        """The number of images, readable or not."""
        return self.shape[0]

    def __getitem__(
        self, chosen: slice | Int64[np.ndarray, "batch"]
    ) -> UInt8[np.ndarray, "batch channels size size"]:
        """Decode the chosen images.

        Raises:
            NonegError: no image can be read; `strict`, and an image cannot be read; or the source
                does not answer.
        """
        index = np.arange(len(self))[chosen]
        self.prefetch(index)
        futures = [self._prefetched.pop(number) for number in index.tolist()]
        pixels = np.empty((len(index), *self.shape[1:]), dtype=np.uint8)
        for position, image in enumerate(futures):
            pixels[position] = self._threads.wait_for(image)
        return pixels

    def __array__(
        self, dtype: np.dtype[np.uint8] | None = None, copy: bool | None = None
    ) -> UInt8[np.ndarray, "images channels size size"]:
        """All images, for NumPy; the caller must know that they fit into memory."""
        return self[:]

    def prefetch(self, index: Int64[np.ndarray, "batch"]) -> None:
        """Start to decode images that will be needed soon, each only once."""
        for number in index.tolist():
            if number not in self._prefetched:
                self._prefetched[number] = self._threads.submit(self._read, number)

    def read_readable(
        self, index: Int64[np.ndarray, "batch"]
    ) -> tuple[UInt8[np.ndarray, "kept channels size size"], Int64[np.ndarray, "kept"]]:
        """Decode the chosen images without replacing unreadable ones: pixels, and their index."""
        pixels = self[index]
        with self._lock:
            kept = np.array([n not in self._unreadable for n in index.tolist()], dtype=bool)
        return pixels[kept], index[kept]

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The unreadable images found so far, in order."""
        with self._lock:
            return tuple(self._unreadable[index] for index in sorted(self._unreadable))

    def _read(self, number: int) -> Image:
        _, channels, size, _ = self.shape
        for step in range(len(self)):
            candidate = (number + step) % len(self)
            with self._lock:
                known = candidate in self._unreadable
            if known:
                continue
            try:
                image = self._threads.read(candidate, channels, size)
            except Unreadable as error:
                skipped = Skipped(self._source.name(candidate), str(error))
                if self._strict:
                    raise unreadable_error(self._source, skipped) from None
                with self._lock:
                    self._unreadable[candidate] = skipped
            else:
                self._any_read = True
                return image
        if self._any_read:
            last = self.skipped[-1]
            raise MachineError(
                f"no image of the {self._source.description} can be read any more (for example, "
                f"{printable(last.name)}: {printable(last.reason)}): put the images back"
            )
        raise none_readable_error(self._source, self.skipped[0], len(self))
