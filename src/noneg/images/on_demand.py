"""Images that are decoded whenever they are asked for, where there is room for none of them."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import final

import numpy as np
from jaxtyping import Int64, UInt8

from noneg.images.reading import check_form, processors
from noneg.images.source import ImageSource, Skipped, Unreadable, none_readable, not_readable

Image = UInt8[np.ndarray, "channels size size"]


@final
class PixelsOnDemand:
    """Stands for uint8 [N, channels, size, size]; indexing decodes, on all cores.

    An unreadable image is replaced by the next readable one, so that batches stay whole.

    Attributes:
        shape: as an array has it.
    """

    def __init__(self, source: ImageSource, channels: int, size: int, strict: bool = False) -> None:
        """Keep what it takes to read; nothing is read yet. `strict` allows no replacement."""
        check_form(channels, size)
        self.shape = (len(source), channels, size, size)
        self._source = source
        self._strict = strict
        self._unreadable: dict[int, Skipped] = {}
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(processors(), thread_name_prefix="noneg-images")
        self._expected: dict[int, Future[Image]] = {}

    def __len__(self) -> int:
        """The number of images, readable or not."""
        return self.shape[0]

    def __getitem__(
        self, chosen: slice | Int64[np.ndarray, "batch"]
    ) -> UInt8[np.ndarray, "batch channels size size"]:
        """Decode the chosen images.

        Raises:
            NonegError: no image can be read; or strict, and one cannot.
        """
        index = np.arange(len(self))[chosen]
        self.expect(index)
        waiting = [self._expected.pop(number) for number in index.tolist()]
        pixels = np.empty((len(index), *self.shape[1:]), dtype=np.uint8)
        for position, image in enumerate(waiting):
            pixels[position] = image.result()
        return pixels

    def __array__(
        self, dtype: np.dtype[np.uint8] | None = None, copy: bool | None = None
    ) -> UInt8[np.ndarray, "images channels size size"]:
        """All of them, for NumPy; whoever asks has made sure that they fit."""
        return self[:]

    def expect(self, index: Int64[np.ndarray, "batch"]) -> None:
        """Begin to decode images that will be asked for soon; each at most once."""
        for number in index.tolist():
            if number not in self._expected:
                self._expected[number] = self._threads.submit(self._read, number)

    def read(
        self, index: Int64[np.ndarray, "batch"]
    ) -> tuple[UInt8[np.ndarray, "kept channels size size"], Int64[np.ndarray, "kept"]]:
        """Decode the chosen images, and leave out what cannot be read: pixels, and whose."""
        pixels = self[index]
        with self._lock:
            kept = np.array([n not in self._unreadable for n in index.tolist()], dtype=bool)
        return pixels[kept], index[kept]

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The unreadable images that were asked for so far, in order."""
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
                return self._source.read(candidate, channels, size)
            except Unreadable as error:
                skipped = Skipped(self._source.name(candidate), str(error))
                if self._strict:
                    raise not_readable(self._source, skipped) from None
                with self._lock:
                    self._unreadable[candidate] = skipped
        raise none_readable(self._source, self.skipped[0])
