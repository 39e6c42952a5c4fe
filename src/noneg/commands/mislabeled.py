"""`noneg mislabeled`: labels that the most similar images contradict."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from noneg.collection.label_errors import NEIGHBORS, doubt_labels
from noneg.commands.found import check_out, open_collection, picture, read_labels, write_found
from noneg.errors import NonegError, printable
from noneg.report.gallery import Row, gallery

_PRINTED, _SHOWN, _IN_A_ROW = 20, 120, 10


def run(
    *,
    run: str,
    backbone: str | None,
    data: str,
    labels: Path | None,
    out: Sequence[Path],
    device: str,
    cache: bool,
) -> None:
    """Print the clearest contradictions, and write all of them to files.

    Raises:
        NonegError: there is no encoder, or there are no labels of two classes.
    """
    check_out(out)
    _, collection = open_collection(run, backbone, data, device, cache)
    if labels is not None:
        numbers, classes = read_labels(labels, collection)
    elif collection.labels is not None:
        numbers = collection.labels
        named = collection.source.classes
        count = int(numbers.max()) + 1
        classes = named if named is not None else tuple(map(str, range(count)))
    else:
        raise NonegError(
            f"the {collection.source.description} has no labels: put the images of each class into "
            "a folder of its own, or give --labels"
        )
    known = np.flatnonzero(numbers >= 0)
    doubts = doubt_labels(collection.vectors[known], numbers[known])
    order = doubts.order()
    records = [
        {
            "name": collection.name(known[each]),
            "label": printable(classes[numbers[known[each]]]),
            "neighbors_say": printable(classes[doubts.suggested[each]]),
            "votes": round(float(doubts.share[each]), 4),
            "votes_for_label": round(float(doubts.own[each]), 4),
        }
        for each in order
    ]
    print(
        f"of {len(known):,} images with a label, the {NEIGHBORS} nearest of {len(order):,} prefer "
        "another one; look before you change it"
    )
    for each in records[:_PRINTED]:
        print(
            f"{each['votes']:>8.3f}  {each['name']}  is {each['label']}, neighbors say "
            f"{each['neighbors_say']}"
        )

    def page() -> str:
        shown = [
            picture(collection, known[index], f"{each['label']}? {each['neighbors_say']}")
            for index, each in zip(order[:_SHOWN], records, strict=False)
        ]
        rows = [Row(shown[at : at + _IN_A_ROW]) for at in range(0, len(shown), _IN_A_ROW)]
        note = f"The label, and what the {NEIGHBORS} most similar images say; the clearest first."
        return gallery("Suspected labels", run, note, rows)

    write_found(out, records, page)
