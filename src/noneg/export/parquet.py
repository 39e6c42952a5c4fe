"""One embedding per image, as a Parquet table that other tools read."""

import json
import os
from typing import Any, NamedTuple

import numpy as np
import torch

from noneg.encoder import Encoder
from noneg.errors import printable
from noneg.files import whole_or_not_at_all
from noneg.images import ImageSource, Skipped, find_source
from noneg.images.find import Data
from noneg.images.folder import FolderSource

SKIPPED = b"noneg.skipped"
"""The key of a table's metadata with the images that are not in it: [[name, reason], ...]."""

_BYTES_PER_ROW_GROUP = 2**24


class Written(NamedTuple):
    """The number of rows in a table, and the images that could not be read."""

    rows: int
    skipped: tuple[Skipped, ...]


def write_parquet(
    path: str | os.PathLike[str],
    encoder: Encoder,
    data: Data | ImageSource,
    *,
    images: range | None = None,
    batch_size: int = 256,
    device: str | torch.device = "auto",
    strict: bool = False,
    progress: bool = False,
) -> Written:
    """Embed images into a Parquet file, in memory that does not grow with their number.

    Columns: for a folder `path` (string, relative to the folder, with forward slashes), otherwise
    `index` (int64); and `embedding` (fixed-size list of D float32). The names of images that could
    not be read are in the metadata (`SKIPPED`). The file appears when it is complete.

    Args:
        path: the file; an older one is replaced.
        encoder: computes the embeddings.
        data: the images, as for `Encoder.embed`, or an `ImageSource`.
        images: consecutive ones, by their place in the data; by default all. If there are others,
            this part may have no readable image.
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
            source, batch_size, device, progress, strict, skipped, images=images
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
        named = [(printable(image.name), printable(image.reason)) for image in skipped]
        writer.add_key_value_metadata({SKIPPED: json.dumps(named).encode()})
    return Written(rows, tuple(skipped))
