"""`noneg select`: which images to label first."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from noneg.collection.embedded import Collection
from noneg.collection.selection import Strategy, select
from noneg.commands.found import check_out, open_collection, picture, write_found
from noneg.errors import NonegError, printable
from noneg.report.gallery import Row, gallery

_PRINTED, _SHOWN, _IN_A_ROW = 20, 240, 12


def run(
    *,
    run: str,
    backbone: str | None,
    data: str,
    count: int,
    strategy: Strategy,
    labeled: Path | None,
    seed: int,
    out: Sequence[Path],
    device: str,
    cache: bool,
) -> None:
    """Print the images to label, and write them to files, the most useful first.

    Raises:
        NonegError: there is no encoder, there are not so many images, or the labels do not fit.
    """
    check_out(out)
    _, collection = open_collection(run, backbone, data, device, cache)
    labels = None if labeled is None else _read_labels(labeled, collection)
    chosen = select(collection.vectors, count, strategy=strategy, labels=labels, seed=seed)
    names = [collection.name(each) for each in chosen]
    print("\n".join(names[:_PRINTED]))
    if count > _PRINTED:
        print(f"and {count - _PRINTED:,} more: --out FILE writes all of them")

    def page() -> str:
        shown = [
            picture(collection, each, f"{rank + 1}") for rank, each in enumerate(chosen[:_SHOWN])
        ]
        rows = [Row(shown[at : at + _IN_A_ROW]) for at in range(0, len(shown), _IN_A_ROW)]
        return gallery("To label first", run, f"In this order ({strategy}).", rows)

    records = [{"rank": rank + 1, "name": name} for rank, name in enumerate(names)]
    write_found(out, records, page)


def _read_labels(file: Path, collection: Collection) -> np.ndarray:
    """The label of each image as a number, and -1 without one."""
    where = printable(str(file))
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            rows = list(csv.DictReader(opened))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise NonegError(
            f"{where} cannot be read ({error}): give a CSV file with the columns name and label"
        ) from None
    if not rows or not {"name", "label"} <= rows[0].keys():
        raise NonegError(f"{where} has no rows with the columns name and label: give both")
    given = {row["name"]: row["label"] for row in rows}
    classes = {label: number for number, label in enumerate(sorted(map(str, given.values())))}
    names = [collection.name(index) for index in range(len(collection))]
    if unknown := given.keys() - set(names):
        raise NonegError(
            f"{where} names {printable(str(min(unknown)))}, which is no image of the "
            f"{collection.source.description}: give names as noneg embed writes them"
        )
    return np.array([classes[str(given[name])] if name in given else -1 for name in names])
