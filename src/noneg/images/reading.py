"""Reading images in threads, in order, only a bounded amount ahead of their use."""

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from noneg.errors import NonegError
from noneg.images.array import ArraySource
from noneg.images.source import ImageSource, Skipped, Unreadable, none_readable, not_readable

_MOST_IMAGES = 64
_MOST_BYTES = 8 * 2**20


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some consecutive images; the unreadable ones are left out of pixels and indices."""

    pixels: UInt8[np.ndarray, "images channels size size"]
    indices: list[int]
    skipped: list[Skipped]

    @property
    def seen(self) -> int:
        """How many images were tried."""
        return len(self.indices) + len(self.skipped)


def read_in_chunks(source: ImageSource, channels: int, size: int) -> Generator[Chunk, None, None]:
    """All images of the source, in order: in threads, or at once where an array has the form.

    Close the iterator (`contextlib.closing`) to stop: each thread finishes the image it is at.

    Raises:
        NonegError: from `source.read`.
    """
    length = max(1, _MOST_BYTES // (channels * size * size))
    if isinstance(source, ArraySource) and source.has_form(channels, size):
        for start in range(0, len(source), length):
            block = source.block(start, min(start + length, len(source)))
            yield Chunk(block, list(range(start, start + len(block))), [])
        return
    length = min(_MOST_IMAGES, length)
    starts = iter(range(0, len(source), length))
    stop = threading.Event()
    threads = processors()
    executor = ThreadPoolExecutor(threads, thread_name_prefix="noneg-images")
    waiting: deque[Future[Chunk]] = deque()

    def submit_next() -> None:
        start = next(starts, None)
        if start is not None:
            indices = range(start, min(start + length, len(source)))
            waiting.append(executor.submit(_read_chunk, source, indices, channels, size, stop))

    try:
        for _ in range(2 * threads):
            submit_next()
        while waiting:
            chunk = waiting.popleft().result()
            submit_next()
            yield chunk
    finally:
        # Also on Ctrl-C: without the event, the threads would first finish what they had begun.
        stop.set()
        executor.shutdown(wait=True, cancel_futures=True)


def check_form(channels: int, size: int) -> None:
    """Raise NonegError unless channels and size are positive."""
    if channels < 1 or size < 1:
        raise NonegError(
            f"{channels} channels of {size} x {size} pixels were asked for: both must be at "
            "least 1."
        )


def _read_chunk(
    source: ImageSource, indices: range, channels: int, size: int, stop: threading.Event
) -> Chunk:
    pixels = np.empty((len(indices), channels, size, size), dtype=np.uint8)
    kept: list[int] = []
    skipped: list[Skipped] = []
    for index in indices:
        if stop.is_set():
            break
        try:
            pixels[len(kept)] = source.read(index, channels, size)
        except Unreadable as error:
            skipped.append(Skipped(source.name(index), str(error)))
        else:
            kept.append(index)
    return Chunk(pixels[: len(kept)], kept, skipped)


def processors() -> int:
    """How many this process may use; under a scheduler, the machine has more."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def stream_images(
    source: ImageSource,
    *,
    channels: int,
    size: int,
    batch_size: int,
    strict: bool = False,
    on_skip: Callable[[Skipped], None],
) -> Iterator[tuple[np.ndarray, list[int]]]:
    """Read the images in order, in parallel, a bounded amount ahead of their use.

    Args:
        source: from `find_source`.
        channels: 1 (gray), 3 (color), or the channels that the source's arrays have.
        size: side of the square, in pixels.
        batch_size: images in each batch; the last may be smaller.
        strict: whether an unreadable image is an error.
        on_skip: called, in this thread, for each image that is left out.

    Returns:
        An iterator over (uint8 [B, channels, size, size], the B indices in the source).

    Raises:
        NonegError: no image can be read; or strict, and one cannot.
    """
    check_form(channels, size)
    if batch_size < 1:
        raise NonegError(f"Batches of {batch_size} images were asked for: give at least 1.")
    return _batches(source, channels, size, batch_size, strict, on_skip)


def _batches(
    source: ImageSource,
    channels: int,
    size: int,
    batch_size: int,
    strict: bool,
    on_skip: Callable[[Skipped], None],
) -> Iterator[tuple[np.ndarray, list[int]]]:
    batch = np.empty((batch_size, channels, size, size), dtype=np.uint8)
    indices: list[int] = []
    first: Skipped | None = None
    any_read = False
    with closing(read_in_chunks(source, channels, size)) as chunks:
        for chunk in chunks:
            for image in chunk.skipped:
                if strict:
                    raise not_readable(source, image)
                first = first or image
                on_skip(image)
            taken = 0
            while taken < len(chunk.indices):
                any_read = True
                step = min(batch_size - len(indices), len(chunk.indices) - taken)
                batch[len(indices) : len(indices) + step] = chunk.pixels[taken : taken + step]
                indices += chunk.indices[taken : taken + step]
                taken += step
                if len(indices) == batch_size:
                    yield batch, indices
                    # A new array: the batch that was handed out belongs to whoever took it.
                    batch, indices = np.empty_like(batch), []
    if indices:
        yield batch[: len(indices)], indices
    if not any_read and first is not None:
        raise none_readable(source, first)
