"""Read the images of a source in threads, in order, a bounded number ahead of their use."""

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import UInt8

from noneg.errors import NonegError
from noneg.images.array import ArraySource
from noneg.images.source import (
    ImageSource,
    Skipped,
    Unreadable,
    check_channels_and_size,
    none_readable_error,
    unreadable_error,
)
from noneg.images.threads import ReadingThreads

_MAX_BLOCK_IMAGES = 64
_MAX_BLOCK_BYTES = 8 * 2**20

OnSkip = Callable[[Skipped], object]


def stream_images(
    source: ImageSource,
    *,
    channels: int,
    size: int,
    batch_size: int,
    strict: bool = False,
    on_skip: OnSkip,
    images: range | None = None,
) -> Iterator[tuple[np.ndarray, list[int]]]:
    """Read the images in order, in parallel, a bounded number ahead of their use.

    Args:
        source: from `find_source`.
        channels: 1 (gray), 3 (color), or the channels of the source's arrays.
        size: side of the square, in pixels.
        batch_size: images per batch; the last batch may be smaller.
        strict: whether an unreadable image is an error; otherwise it is left out.
        on_skip: called, in this thread, for each image that is left out.
        images: consecutive ones, by their place in the source; by default all.

    Returns:
        An iterator over (uint8 [B, channels, size, size], the B indices in the source).

    Raises:
        NonegError: no image of the source can be read; `strict`, and an image cannot be read; or
            the source does not answer.
    """
    check_channels_and_size(channels, size)
    if batch_size < 1:
        raise NonegError(f"Batches of {batch_size} images were asked for: give at least 1.")
    return _batches(read_blocks(source, channels, size, strict, on_skip, images), batch_size)


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive images of a source; the unreadable ones are not in `pixels` and `indices`."""

    pixels: UInt8[np.ndarray, "images channels size size"]
    indices: list[int]
    skipped: list[Skipped]


def read_blocks(
    source: ImageSource,
    channels: int,
    size: int,
    strict: bool,
    on_skip: OnSkip,
    images: range | None = None,
) -> Generator[Block, None, None]:
    """All images of a source, in order, in blocks of limited size.

    Close the generator (`contextlib.closing`) to stop early: each thread finishes its current
    image. See `stream_images` for the arguments and errors.
    """
    first: Skipped | None = None
    any_read = False
    chosen = range(len(source)) if images is None else images
    if isinstance(source, ArraySource) and source.needs_no_conversion(channels, size):
        all_blocks = _array_blocks(source, chosen, channels, size)
    else:
        all_blocks = _threaded_blocks(source, chosen, channels, size)
    with closing(all_blocks) as blocks:
        for block in blocks:
            for image in block.skipped:
                if strict:
                    raise unreadable_error(source, image)
                first = first or image
                on_skip(image)
            any_read = any_read or len(block.indices) > 0
            yield block
    # Some images may all be unreadable, where the source is not.
    if first is not None and not any_read and images is None:
        raise none_readable_error(source, first, len(source))


def available_cores() -> int:
    """The cores that this process may use; a scheduler may allow fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def local_processes() -> int:
    """How many processes of this command share the machine, as torchrun or training tells each."""
    told = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, int(told)) if told.isdecimal() else 1


def reading_threads() -> int:
    """How many threads read images: this process's share of the cores, which others may share."""
    return max(1, available_cores() // local_processes())


def _batches(
    blocks: Generator[Block, None, None], batch_size: int
) -> Iterator[tuple[np.ndarray, list[int]]]:
    with closing(blocks):
        batch, indices = np.empty(0, dtype=np.uint8), list[int]()
        for block in blocks:
            taken = 0
            while taken < len(block.indices):
                if not indices:
                    # A new array each time, because the caller keeps the batches.
                    batch = np.empty((batch_size, *block.pixels.shape[1:]), dtype=np.uint8)
                count = min(batch_size - len(indices), len(block.indices) - taken)
                batch[len(indices) : len(indices) + count] = block.pixels[taken : taken + count]
                indices += block.indices[taken : taken + count]
                taken += count
                if len(indices) == batch_size:
                    yield batch, indices
                    indices = []
        if indices:
            yield batch[: len(indices)], indices


def _array_blocks(
    source: ArraySource, images: range, channels: int, size: int
) -> Generator[Block, None, None]:
    length = max(1, _MAX_BLOCK_BYTES // (channels * size * size))
    # In a thread, because the file of a memory-mapped array may be on a disk that blocks.
    threads = ReadingThreads(source, 1)
    try:
        for start in range(images.start, images.stop, length):
            stop = min(start + length, images.stop)
            read = partial(source.read_slice, start, stop)
            pixels = threads.wait_for(threads.submit(threads.watched, start, read))
            yield Block(pixels, list(range(start, stop)), [])
    finally:
        threads.close()


def _threaded_blocks(
    source: ImageSource, images: range, channels: int, size: int
) -> Generator[Block, None, None]:
    length = max(1, _MAX_BLOCK_BYTES // (channels * size * size))
    length = min(_MAX_BLOCK_IMAGES, length)
    starts = iter(range(images.start, images.stop, length))
    stop = threading.Event()
    count = reading_threads()
    threads = ReadingThreads(source, count)
    waiting: deque[Future[Block]] = deque()

    def submit_next() -> None:
        start = next(starts, None)
        if start is not None:
            indices = range(start, min(start + length, images.stop))
            waiting.append(
                threads.submit(_read_block, source, threads, indices, channels, size, stop)
            )

    try:
        for _ in range(2 * count):
            submit_next()
        while waiting:
            block = threads.wait_for(waiting.popleft())
            submit_next()
            yield block
    finally:
        # Also on Ctrl-C. Without the event, the threads would first finish their blocks.
        stop.set()
        threads.close()


def _read_block(
    source: ImageSource,
    threads: ReadingThreads,
    indices: range,
    channels: int,
    size: int,
    stop: threading.Event,
) -> Block:
    pixels = np.empty((len(indices), channels, size, size), dtype=np.uint8)
    kept: list[int] = []
    skipped: list[Skipped] = []
    for index in indices:
        if stop.is_set():
            break
        try:
            pixels[len(kept)] = threads.read(index, channels, size)
        except Unreadable as error:
            skipped.append(Skipped(source.name(index), str(error)))
        else:
            kept.append(index)
    return Block(pixels[: len(kept)], kept, skipped)
