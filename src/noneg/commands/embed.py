"""`noneg embed`: write one row per image to a table that other tools can read."""

import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from noneg.collection.embedded import embed_collection
from noneg.encoder import Encoder, load
from noneg.errors import printable
from noneg.export.browsable import write_browsable
from noneg.files import whole_or_not_at_all
from noneg.images import Skipped, find_source
from noneg.images.find import Data
from noneg.images.folder import FolderSource
from noneg.images.source import unreadable_error

_BYTES_PER_ROW_GROUP = 2**24


class Written(NamedTuple):
    """The number of rows in a table, and the images that could not be read."""

    rows: int
    skipped: tuple[Skipped, ...]


def run(
    *,
    run: str,
    backbone: str | None,
    data: str,
    out: Path,
    batch_size: int,
    device: str,
    strict: bool,
    pictures: bool,
) -> None:
    """Embed images with a run's encoder, and print their number and which ones were skipped.

    With `pictures`, the table also has thumbnails, a map and neighbors.

    Raises:
        NonegError: there is no encoder, the data cannot be read, or the file cannot be written.
    """
    encoder = load(run, backbone=backbone)
    if pictures:
        collection = embed_collection(encoder, data, device=device, progress=True)
        if strict and collection.skipped:
            raise unreadable_error(collection.source, collection.skipped[0])
        write_browsable(out, collection)
        _say(Written(len(collection), collection.skipped), encoder, out)
        return
    written = write_parquet(
        out, encoder, data, batch_size=batch_size, device=device, strict=strict, progress=True
    )
    _say(written, encoder, out)


def _say(written: Written, encoder: Encoder, out: Path) -> None:
    where = printable(str(out))
    print(f"{written.rows} embeddings of {encoder.info.features} numbers written to {where}")
    for image in written.skipped:
        print(f"skipped {printable(image.name)}: {printable(image.reason)}", file=sys.stderr)


def write_parquet(
    path: str | os.PathLike[str],
    encoder: Encoder,
    data: Data,
    *,
    batch_size: int = 256,
    device: str | torch.device = "auto",
    strict: bool = False,
    progress: bool = False,
) -> Written:
    """Embed images into a Parquet file, in memory that does not grow with their number.

    Columns: for a folder `path` (string, relative to the folder, with forward slashes), otherwise
    `index` (int64); and `embedding` (fixed-size list of D float32). The file appears when it is
    complete.

    Args:
        path: the file; an older one is replaced.
        encoder: computes the embeddings.
        data: the images, as for `Encoder.embed`.
        batch_size: images per batch.
        device: "auto" is a GPU if there is one.
        strict: whether an unreadable image is an error; otherwise it is skipped.
        progress: show a progress bar.

    Returns:
        The number of rows, and the skipped images.

    Raises:
        NonegError: the data cannot be read, or the file cannot be written.
    """
    import pyarrow
    import pyarrow.parquet

    source = find_source(data)
    by_path = isinstance(source, FolderSource)
    width = encoder.info.features
    schema = pyarrow.schema(
        [
            pyarrow.field("path", pyarrow.string(), nullable=False)
            if by_path
            else pyarrow.field("index", pyarrow.int64(), nullable=False),
            pyarrow.field("embedding", pyarrow.list_(pyarrow.float32(), width), nullable=False),
        ]
    )
    rows_per_group = max(1, _BYTES_PER_ROW_GROUP // (4 * width))
    skipped: list[Skipped] = []
    rows = 0
    # Many small row groups would be slow to read, so batches are collected.
    waiting: list[Any] = []
    with (
        whole_or_not_at_all(path) as unfinished,
        pyarrow.parquet.ParquetWriter(unfinished, schema) as writer,
    ):
        for indices, block in encoder.embed_source(
            source, batch_size, device, progress, strict, skipped
        ):
            keys = [printable(source.name(index)) for index in indices] if by_path else indices
            values = pyarrow.array(np.ascontiguousarray(block).reshape(-1))
            lists = pyarrow.FixedSizeListArray.from_arrays(values, width)
            waiting.append(pyarrow.record_batch([keys, lists], schema=schema))
            rows += len(indices)
            if sum(batch.num_rows for batch in waiting) >= rows_per_group:
                writer.write_table(pyarrow.Table.from_batches(waiting))
                waiting.clear()
        if waiting:
            writer.write_table(pyarrow.Table.from_batches(waiting))
    return Written(rows, tuple(skipped))
