"""Embeddings of many images: a directory of Parquet files, written by one or more processes.

Which images are in which part depends on their number alone. So any number of processes, on any
number of machines that share the directory, write the same files; those that are complete are never
written again, and a command that was killed goes on where it was.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch

from noneg.collection.embedded import fingerprint
from noneg.encoder import Encoder
from noneg.errors import NonegError, printable
from noneg.export.parquet import SKIPPED, Written, write_parquet
from noneg.files import disk_faults_explained, read_fields, write_json
from noneg.images import ImageSource, Skipped, find_source
from noneg.images.find import Data
from noneg.progress import say_above

CONTENTS = "_noneg.json"
"""What the parts are of. Readers of Parquet directories pass over names that begin with `_`."""

_MOST, _FEWEST, _PARTS = 2**14, 2**8, 64
"""Images in a part; and how many parts there are at least, if none is to be smaller."""


@final
@dataclass(frozen=True)
class Share:
    """Which of several processes this is.

    Args:
        process: its number, from 0.
        processes: how many there are, on all machines.
    """

    process: int = 0
    processes: int = 1


def embed_parts(
    directory: str | os.PathLike[str],
    encoder: Encoder,
    data: Data | ImageSource,
    *,
    share: Share | None = None,
    batch_size: int = 256,
    device: str | torch.device = "auto",
    strict: bool = False,
    progress: bool = False,
) -> Written | None:
    """Write the parts of one process that are not there yet; see `write_parquet` for the columns.

    The parts are `part-00000.parquet` and so on, in the order of the images. Each appears when it
    is complete.

    Args:
        directory: it is made if it is missing.
        encoder: computes the embeddings.
        data: the images, as for `Encoder.embed`, or an `ImageSource`; for several machines in the
            same place.
        share: every `processes`-th part is written; by default all.
        batch_size: images per batch.
        device: "auto" is a GPU if there is one.
        strict: whether an unreadable image is an error; otherwise it is skipped.
        progress: print a line for each part.

    Returns:
        The number of rows of all parts and the skipped images; None as long as parts are missing
        that other processes write.

    Raises:
        NonegError: the directory holds embeddings of another encoder or of other images, no image
            can be read, or the directory cannot be written.
    """
    share = share or Share()
    directory = Path(directory)
    source = find_source(data)
    per_part = images_per_part(len(source))
    starts = range(0, len(source), per_part)
    stamp = source.stamp()
    _claim(
        directory,
        {
            "images": len(source),
            "images_per_part": per_part,
            "encoder": fingerprint(encoder),
            # None if only reading the images could tell which they are.
            "stamp": None if stamp is None else hashlib.blake2b(stamp.encode()).hexdigest()[:32],
        },
    )
    for number in range(share.process, len(starts), share.processes):
        part = part_file(directory, number)
        if part.exists():
            continue
        # Left by a process that was killed: nobody else writes this part.
        for unfinished in directory.glob(f"{part.name}.*.unfinished"):
            unfinished.unlink(missing_ok=True)
        written = write_parquet(
            part,
            encoder,
            source,
            images=range(starts[number], min(starts[number] + per_part, len(source))),
            batch_size=batch_size,
            device=device,
            strict=strict,
        )
        if progress:
            say_above(f"part {number + 1} of {len(starts)}: {written.rows} images")
    return summary(directory, len(starts))


def images_per_part(count: int) -> int:
    """How many images are in each part but the last: 256 to 16,384, so that there is work to share.

    Args:
        count: of all images.
    """
    return min(_MOST, max(_FEWEST, -(-count // _PARTS)))


def part_file(directory: Path, number: int) -> Path:
    """The file of a part."""
    return directory / f"part-{number:05}.parquet"


def summary(directory: Path, parts: int) -> Written | None:
    """Rows and skipped images of all parts, from their ends; None if a part is missing.

    Raises:
        NonegError: a part is damaged, or no image could be read.
    """
    rows = 0
    skipped: list[Skipped] = []
    for number in range(parts):
        part = part_file(directory, number)
        if not part.exists():
            return None
        found, images = _contents_of(part)
        rows += found
        skipped += images
    if not rows:
        raise NonegError(
            f"None of the images could be read (for example, {skipped[0].name}: "
            f"{skipped[0].reason}): check that they open in an image viewer."
        )
    return Written(rows, tuple(skipped))


def _contents_of(part: Path) -> tuple[int, Iterator[Skipped]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(part) as file:
            named = json.loads((file.metadata.metadata or {})[SKIPPED])
            return file.metadata.num_rows, (Skipped(str(name), str(why)) for name, why in named)
    except (OSError, pyarrow.ArrowException, KeyError, ValueError, TypeError) as error:
        raise NonegError(
            f"{printable(str(part))} is damaged ({printable(str(error))}): remove it, and the "
            "same command writes it again."
        ) from error


def _claim(directory: Path, contents: dict[str, int | str | None]) -> None:
    """Write what the parts are of, or compare it with what is written."""
    file = directory / CONTENTS
    with disk_faults_explained(directory, directory):
        directory.mkdir(parents=True, exist_ok=True)
    try:
        known = read_fields(file)
    except FileNotFoundError:
        if any(directory.glob("part-*.parquet")):
            raise NonegError(
                f"{printable(str(directory))} has parts, but not the file {CONTENTS}, which says "
                "what they are of: give another --out."
            ) from None
        # Another process may write the same at the same time.
        write_json(file, contents)
        return
    except OSError as error:
        raise NonegError(
            f"{printable(str(file))} cannot be read ({error.strerror or error}): choose another "
            "--out."
        ) from error
    except ValueError:
        known = {}
    if known != contents:
        raise NonegError(
            f"{printable(str(directory))} holds embeddings of another encoder or of other images: "
            "give another --out, or remove it."
        )
