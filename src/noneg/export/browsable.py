"""A Parquet table that viewers of embeddings open with pictures, a map and neighbors.

Its columns follow embedding-atlas 0.26, which wants pictures as structs of bytes and path.
"""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from noneg.collection.embedded import Collection
from noneg.collection.neighbors import comparable, nearest
from noneg.collection.plane import map_of
from noneg.errors import printable
from noneg.files import whole_or_not_at_all
from noneg.images.source import Unreadable

NEIGHBORS, SIDE = 10, 128
_ROWS = 500


def write_browsable(path: str | os.PathLike[str], collection: Collection, *, seed: int = 0) -> None:
    """Write one row per image.

    Columns: `name`; `label`, if there are labels; `image`, a struct of a JPEG of 128 pixels and its
    path; `embedding`; `projection_x` and `projection_y`; `neighbors`, a struct of the ids (numbers
    of rows, from 0) and the distances (1 - cosine) of the ten most similar images.

    Args:
        path: the file; an older one is replaced.
        collection: at least two images.
        seed: of the map.

    Raises:
        NonegError: there are fewer than two images, or the file cannot be written.
    """
    import pyarrow
    import pyarrow.parquet

    count, width = collection.vectors.shape
    (vectors,) = comparable(collection.vectors)
    around = nearest(vectors, vectors, NEIGHBORS, same=True)
    plane = map_of(collection.vectors, seed=seed)
    labels, classes = collection.labels, collection.source.classes
    fields = {
        "name": pyarrow.string(),
        **({} if labels is None else {"label": pyarrow.string()}),
        "image": pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()}),
        "embedding": pyarrow.list_(pyarrow.float32(), width),
        "projection_x": pyarrow.float32(),
        "projection_y": pyarrow.float32(),
        "neighbors": pyarrow.struct(
            {
                "ids": pyarrow.list_(pyarrow.int64()),
                "distances": pyarrow.list_(pyarrow.float32()),
            }
        ),
    }
    schema = pyarrow.schema(fields)
    with (
        whole_or_not_at_all(Path(path)) as unfinished,
        pyarrow.parquet.ParquetWriter(unfinished, schema) as writer,
    ):
        for start in range(0, count, _ROWS):
            rows = range(start, min(start + _ROWS, count))
            columns: dict[str, Any] = {
                "name": [collection.name(row) for row in rows],
                "image": [
                    {"bytes": _thumbnail(collection, row), "path": collection.name(row)}
                    for row in rows
                ],
                "embedding": list(collection.vectors[start : rows.stop]),
                "projection_x": plane[start : rows.stop, 0],
                "projection_y": plane[start : rows.stop, 1],
                "neighbors": [
                    {"ids": around.index[row], "distances": 1 - around.cosine[row]} for row in rows
                ],
            }
            if labels is not None:
                columns["label"] = [_label(int(labels[row]), classes) for row in rows]
            arrays = [pyarrow.array(columns[name], kind) for name, kind in fields.items()]
            writer.write_batch(pyarrow.record_batch(arrays, schema=schema))


def _label(label: int, classes: tuple[str, ...] | None) -> str | None:
    if label < 0:
        return None
    return str(label) if classes is None else printable(classes[label])


def _thumbnail(collection: Collection, row: int) -> bytes | None:
    """None if the image can be read no longer."""
    try:
        pixels = collection.read(row, SIDE)
    except Unreadable:
        return None
    shown = pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0]
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(shown)).save(data, "JPEG", quality=85)
    return data.getvalue()
