"""What commands about a collection find: as a table, as JSON, or as a page with pictures."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np

from noneg.collection.embedded import Collection, embed_collection
from noneg.encoder import Encoder, load
from noneg.errors import NonegError, printable
from noneg.files import check_can_be_written, from_cell, to_cell, write_text
from noneg.images.source import Unreadable
from noneg.report.gallery import Picture

KINDS = (".html", ".csv", ".json")

_SIDE = 96


def check_out(files: Sequence[Path]) -> None:
    """Refuse other kinds of files, and places that cannot be written, before anything is computed.

    Raises:
        NonegError: a file has another extension, or cannot be written.
    """
    for file in files:
        if file.suffix.lower() not in KINDS:
            raise NonegError(
                f"--out {printable(str(file))}: its extension says what is written: .html (a page "
                "with pictures), .csv or .json"
            )
        check_can_be_written(file)


def open_collection(
    run: str, backbone: str | None, data: str, device: str, cache: bool
) -> tuple[Encoder, Collection]:
    """The encoder, and the embedded images; says what was skipped.

    Raises:
        NonegError: there is no encoder, or no image can be read.
    """
    encoder = load(run, backbone=backbone)
    collection = embed_collection(encoder, data, cache=cache, device=device, progress=True)
    if collection.skipped:
        first = collection.skipped[0]
        print(
            f"{len(collection.skipped)} of {len(collection.source)} images cannot be read, the "
            f"first {printable(first.name)}: {printable(first.reason)}"
        )
    return encoder, collection


def write_found(
    files: Sequence[Path], records: Sequence[Mapping[str, Any]], page: Callable[[], str]
) -> None:
    """Write the records, or the page that `page` makes, into each file.

    Raises:
        NonegError: a file cannot be written.
    """
    for file in files:
        kind = file.suffix.lower()
        if kind == ".html":
            write_text(file, page())
        elif kind == ".json":
            write_text(file, json.dumps(list(records), indent=1) + "\n")
        else:
            text = io.StringIO()
            writer = csv.DictWriter(text, list(records[0]) if records else [], lineterminator="\n")
            writer.writeheader()
            for record in records:
                writer.writerow(
                    {
                        name: to_cell(value) if isinstance(value, str) else value
                        for name, value in record.items()
                    }
                )
            write_text(file, text.getvalue())
        print(f"written  {printable(str(file))}")


def picture(collection: Collection, index: SupportsIndex, caption: str = "") -> Picture:
    """A picture of one image; a blank one if it can be read no longer."""
    try:
        pixels = collection.read(index, _SIDE)
    except Unreadable:
        pixels = np.full((1, _SIDE, _SIDE), 128, np.uint8)
    return Picture(_shown(pixels), collection.name(index), caption)


def shown_picture(pixels: np.ndarray, name: str, caption: str = "") -> Picture:
    """A picture of an image that is in no collection, uint8 [C, 96, 96]."""
    return Picture(_shown(pixels), printable(name), caption)


def _shown(pixels: np.ndarray) -> np.ndarray:
    """As three channels; of other numbers than one and three, the first."""
    return pixels if len(pixels) == 3 else np.repeat(pixels[:1], 3, axis=0)


def labels_in(file: Path) -> dict[str, str]:
    """The label of each name in a CSV file.

    Raises:
        NonegError: it cannot be read, or has no rows with the columns name and label.
    """
    where = printable(str(file))
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            rows = list(csv.DictReader(opened))
    except (OSError, ValueError, csv.Error) as error:
        raise NonegError(
            f"{where} cannot be read ({error}): give a CSV file with the columns name and label"
        ) from None
    if not rows or not {"name", "label"} <= rows[0].keys():
        raise NonegError(f"{where} has no rows with the columns name and label: give both")
    return {from_cell(row["name"]): from_cell(str(row["label"])) for row in rows}


def read_labels(file: Path, collection: Collection) -> tuple[np.ndarray, tuple[str, ...]]:
    """The label of each image as a number, -1 without one, and the classes.

    Raises:
        NonegError: the file has not the columns name and label, or names other images.
    """
    given, where = labels_in(file), printable(str(file))
    classes = {label: number for number, label in enumerate(sorted(given.values()))}
    names = [collection.name(index) for index in range(len(collection))]
    if unknown := given.keys() - set(names):
        raise NonegError(
            f"{where} names {printable(str(min(unknown)))}, which is no image of the "
            f"{collection.source.description}: give names as noneg embed writes them"
        )
    found = [classes[given[name]] if name in given else -1 for name in names]
    return np.array(found, dtype=np.int64), tuple(classes)
