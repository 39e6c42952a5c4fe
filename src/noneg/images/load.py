"""All images of a source, decoded and resized once."""

import csv
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from noneg.errors import NonegError, printable
from noneg.files import to_cell, whole_or_not_at_all
from noneg.images.free_memory import available_memory
from noneg.images.on_demand import PixelsOnDemand
from noneg.images.reading import read_blocks
from noneg.images.source import ImageSource, Skipped, check_channels_and_size
from noneg.progress import progress_bar


@dataclass(frozen=True, eq=False)
class Images:
    """Decoded images. Everything except `skipped` is aligned with `pixels`.

    Attributes:
        pixels: uint8 [N, C, S, S], in memory, in a memory-mapped file that is never written to, or
            decoded on demand; `np.asarray` always makes an array of it.
        names: relative paths with forward slashes, or indices.
        labels: int64 [N], from 0, only used for evaluation; None unless every image has one.
        classes: the name of each label, if known.
        skipped: the images that were left out, and the reasons.
        description: where the images come from, for messages.
        factors: the random factors that each image was made of, each [N]; only for the built-in
            shapes.
    """

    pixels: UInt8[np.ndarray, "images channels size size"] | PixelsOnDemand
    names: tuple[str, ...]
    labels: Int64[np.ndarray, "images"] | None
    classes: tuple[str, ...] | None
    skipped: tuple[Skipped, ...]
    description: str
    factors: Mapping[str, np.ndarray] | None


def load_images(
    source: ImageSource,
    *,
    channels: int,
    size: int,
    strict: bool = False,
    cache_file: Path | None = None,
    in_memory: bool | None = None,
    progress: bool = False,
) -> Images:
    """Read every image, in parallel, into memory or into a file.

    Args:
        source: from `find_source`.
        channels: 1 (gray), 3 (color), or the channels of the source's arrays.
        size: side of the square, in pixels.
        strict: whether an unreadable image is an error; otherwise it is left out.
        cache_file: the file for images that do not fit into memory; it is replaced once complete.
        in_memory: whether to keep the images in memory; by default, if they need at most a quarter
            of the available memory.
        progress: whether to show a progress bar on stderr, if reading takes more than a second.

    Raises:
        NonegError: no image can be read; `strict`, and an image cannot be read; the images do not
            fit into memory and there is no `cache_file`; or the file cannot be written.
    """
    check_channels_and_size(channels, size)
    needed = len(source) * channels * size * size
    if in_memory is None:
        in_memory = fits_in_memory(needed)
    if in_memory:
        cache_file = None
    elif cache_file is None:
        raise NonegError(
            f"The {len(source)} images of the {source.description} need {needed / 2**30:.1f} GiB "
            f"at {channels} x {size} x {size}, more than a quarter of the "
            f"{available_memory() / 2**30:.1f} GiB of memory available: give a cache file on disk, "
            "or choose a smaller size."
        )
    kept: list[int] = []
    skipped: list[Skipped] = []
    shape = (len(source), channels, size, size)
    with closing(_read_pixels(source, channels, size, strict, progress, kept, skipped)) as blocks:
        pixels = (
            _fill_memory(blocks, shape)
            if cache_file is None
            else _fill_file(blocks, shape, cache_file)
        )
    return Images(
        pixels=pixels,
        names=tuple(source.name(index) for index in kept),
        labels=_kept_labels(source.labels, kept),
        classes=source.classes,
        skipped=tuple(skipped),
        description=source.description,
        factors=source.factors and {name: values[kept] for name, values in source.factors.items()},
    )


def fits_in_memory(needed: int) -> bool:
    """Whether `needed` bytes are at most a quarter of the available memory."""
    return needed <= available_memory() // 4


def images_on_demand(
    source: ImageSource, *, channels: int, size: int, strict: bool = False
) -> Images:
    """Like `load_images`, but decode an image each time it is needed, and read nothing yet.

    All images count, readable or not. Labels are those known before reading.

    Raises:
        NonegError: `channels` or `size` is not positive.
    """
    labeled = source.labels is not None and bool((source.labels >= 0).all())
    return Images(
        pixels=PixelsOnDemand(source, channels, size, strict),
        names=tuple(source.name(index) for index in range(len(source))),
        labels=source.labels if labeled else None,
        classes=source.classes,
        skipped=(),
        description=source.description,
        factors=source.factors,
    )


def write_skipped(path: Path, skipped: Iterable[Skipped]) -> None:
    """Write a CSV table of name and reason in UTF-8; undecodable bytes become escapes.

    Raises:
        MachineError: the file cannot be written.
    """
    with (
        whole_or_not_at_all(path) as unfinished,
        unfinished.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(("name", "reason"))
        for image in skipped:
            writer.writerow([to_cell(printable(each)) for each in (image.name, image.reason)])


def _read_pixels(
    source: ImageSource,
    channels: int,
    size: int,
    strict: bool,
    progress: bool,
    kept: list[int],
    skipped: list[Skipped],
) -> Generator[np.ndarray, None, None]:
    """Blocks of pixels in order; adds to `kept` and `skipped`."""
    with (
        progress_bar(
            total=len(source), desc=f"reading {source.description}", delay=1.0, shown=progress
        ) as bar,
        closing(read_blocks(source, channels, size, strict, skipped.append)) as blocks,
    ):
        for block in blocks:
            kept.extend(block.indices)
            yield block.pixels
            bar.update(len(kept) + len(skipped) - bar.done)


def _fill_memory(blocks: Iterator[np.ndarray], shape: tuple[int, int, int, int]) -> np.ndarray:
    pixels = np.empty(shape, dtype=np.uint8)
    filled = 0
    for block in blocks:
        pixels[filled : filled + len(block)] = block
        filled += len(block)
    return pixels[:filled]


def _fill_file(
    blocks: Iterator[np.ndarray], shape: tuple[int, int, int, int], cache_file: Path
) -> np.ndarray:
    """Raw bytes, image after image, because the number of images is known only at the end."""
    filled = 0
    with whole_or_not_at_all(cache_file) as unfinished, open(unfinished, "wb") as file:
        for block in blocks:
            file.write(np.ascontiguousarray(block).data)
            filled += len(block)
    # Copy-on-write, because torch warns about arrays that cannot be written to.
    return np.memmap(cache_file, dtype=np.uint8, mode="c", shape=(filled, *shape[1:]))


def _kept_labels(labels: np.ndarray | None, kept: list[int]) -> np.ndarray | None:
    if labels is None:
        return None
    chosen = labels[kept]
    return None if (chosen < 0).any() else chosen
