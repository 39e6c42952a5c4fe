"""`noneg embed`: one row an image, in a table that other tools read."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from noneg.encoder import Data, Encoder
from noneg.errors import NonegError
from noneg.files import whole_or_not_at_all
from noneg.images import Skipped, find_source
from noneg.images.folder import FolderSource
from noneg.images.source import printable

_BYTES_PER_ROW_GROUP = 2**24


class Written(NamedTuple):
    """How many rows a table has, and which images it lacks because they could not be read."""

    rows: int
    skipped: tuple[Skipped, ...]


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

    Columns: `path` (string, within the folder, with forward slashes) for a folder, else `index`
    (int64); and `embedding` (fixed-size list of D float32). The file appears when it is complete.

    Args:
        path: of the file; replaced if it is there.
        encoder: that makes the embeddings.
        data: as for `Encoder.embed`.
        batch_size: images at once.
        device: "auto" takes a GPU where there is one.
        strict: whether an unreadable image is an error; otherwise it is left out.
        progress: show a bar on stderr.

    Returns:
        The number of rows, and the images that were left out.

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
    # Small batches would make small row groups, which are slow to read.
    waiting: list[Any] = []
    try:
        with (
            whole_or_not_at_all(Path(path)) as unfinished,
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
    except OSError as error:
        raise NonegError(
            f"{printable(os.fspath(path))} cannot be written ({error.strerror or error}): choose a "
            f"place in an existing folder with enough room."
        ) from error
    return Written(rows, tuple(skipped))
