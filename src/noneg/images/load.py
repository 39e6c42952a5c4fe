"""All images of a source, decoded and resized once."""

import csv
import os
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8
from tqdm import tqdm

from noneg.errors import NonegError
from noneg.images.free_memory import available_memory
from noneg.images.on_demand import PixelsOnDemand
from noneg.images.reading import check_form, read_in_chunks
from noneg.images.source import (
    ImageSource,
    Skipped,
    none_readable,
    not_readable,
    printable,
)


@dataclass(frozen=True, eq=False)
class Images:
    """Decoded images; everything but `skipped` is aligned with `pixels`.

    Attributes:
        pixels: uint8 [N, C, S, S], in memory, in a memory-mapped file that is never written to, or
            decoded on demand; `np.asarray` of it is always an array.
        names: relative paths with forward slashes, or indices.
        labels: int64 [N], from 0, for evaluation alone; None unless every image has one.
        classes: the name of each label, where known.
        skipped: the images that were left out, and why.
        description: where the images come from, in words for people.
        factors: what each image was drawn from, each [N]; the built-in shapes alone have them.
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
    progress: bool = True,
) -> Images:
    """Read every image, in parallel; into a file if they would fill a quarter of the memory.

    Args:
        source: from `find_source`.
        channels: 1 (gray), 3 (color), or the channels that the source's arrays have.
        size: side of the square, in pixels.
        strict: whether an unreadable image is an error; otherwise it is left out.
        cache_file: the file for images that do not fit into memory; replaced when it is complete.
        in_memory: whether to keep them in memory, by default where they fill less than a quarter.
        progress: whether to show a progress bar on stderr, if it takes more than a second.

    Raises:
        NonegError: no image can be read; strict, and one cannot; too large for memory and no
            `cache_file`; or the file cannot be written.
    """
    check_form(channels, size)
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
    blocks = _blocks(source, channels, size, strict, progress, kept, skipped)
    shape = (len(source), channels, size, size)
    with closing(blocks):
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
    """Whether `needed` bytes of images leave three quarters of the memory to everything else."""
    return needed <= available_memory() // 4


def images_on_demand(
    source: ImageSource, *, channels: int, size: int, strict: bool = False
) -> Images:
    """The same without reading anything yet, for sets that there is no room for.

    Every image counts, readable or not; labels are those known before reading.

    Raises:
        NonegError: channels or size cannot be had.
    """
    known = source.labels is not None and bool((source.labels >= 0).all())
    return Images(
        pixels=PixelsOnDemand(source, channels, size, strict),
        names=tuple(source.name(index) for index in range(len(source))),
        labels=source.labels if known else None,
        classes=source.classes,
        skipped=(),
        description=source.description,
        factors=source.factors,
    )


def write_skipped(path: Path, skipped: Iterable[Skipped]) -> None:
    """Write a CSV table of name and reason in UTF-8; undecodable bytes become escapes."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("name", "reason"))
        writer.writerows((printable(image.name), printable(image.reason)) for image in skipped)


def _blocks(
    source: ImageSource,
    channels: int,
    size: int,
    strict: bool,
    progress: bool,
    kept: list[int],
    skipped: list[Skipped],
) -> Generator[np.ndarray, None, None]:
    """Blocks of pixels in order; fills `kept` and `skipped` on the way."""
    with (
        tqdm(
            total=len(source),
            desc=f"reading {source.description}",
            unit=" images",
            delay=1,
            disable=not progress,
        ) as bar,
        closing(read_in_chunks(source, channels, size)) as chunks,
    ):
        for chunk in chunks:
            if strict and chunk.skipped:
                raise not_readable(source, chunk.skipped[0])
            kept.extend(chunk.indices)
            skipped.extend(chunk.skipped)
            yield chunk.pixels
            bar.update(chunk.seen)
    if not kept:
        raise none_readable(source, skipped[0])


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
    """Raw bytes, image after image: how many images there will be is known only at the end."""
    filled = 0
    unfinished: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=cache_file.parent, prefix=cache_file.name + ".", suffix=".unfinished", delete=False
        ) as file:
            unfinished = Path(file.name)
            for block in blocks:
                file.write(np.ascontiguousarray(block).data)
                filled += len(block)
        os.replace(unfinished, cache_file)
        # Copy-on-write, since torch warns of arrays that cannot be written to.
        return np.memmap(cache_file, dtype=np.uint8, mode="c", shape=(filled, *shape[1:]))
    except OSError as error:
        raise NonegError(
            f"The cache file {printable(str(cache_file))} cannot be written "
            f"({error.strerror or error}): give a place in an existing folder with enough room."
        ) from error
    finally:
        if unfinished is not None:
            with suppress(FileNotFoundError):
                unfinished.unlink()


def _kept_labels(labels: np.ndarray | None, kept: list[int]) -> np.ndarray | None:
    if labels is None:
        return None
    chosen = labels[kept]
    return None if (chosen < 0).any() else chosen
