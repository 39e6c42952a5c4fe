"""`noneg outliers`: the images that no other image resembles."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from noneg.collection.outliers import NEIGHBORS, strangeness
from noneg.commands.found import check_out, open_collection, picture, write_found
from noneg.report.gallery import Row, gallery

_PRINTED, _SHOWN, _IN_A_ROW = 20, 120, 12


def run(
    *,
    run: str,
    backbone: str | None,
    data: str,
    out: Sequence[Path],
    device: str,
    cache: bool,
) -> None:
    """Print the strangest images, and write all of them to files, the strangest first.

    Raises:
        NonegError: there is no encoder, or no two images can be read.
    """
    check_out(out)
    _, collection = open_collection(run, backbone, data, device, cache)
    values = strangeness(collection.vectors)
    order = np.argsort(-values, kind="stable")
    median = float(np.median(values))
    print(f"1 - the mean cosine with the {NEIGHBORS} nearest images; its median is {median:.3f}")
    for each in order[:_PRINTED]:
        print(f"{values[each]:>8.3f}  {collection.name(each)}")

    def page() -> str:
        shown = [picture(collection, each, f"{values[each]:.2f}") for each in order[:_SHOWN]]
        rows = [Row(shown[at : at + _IN_A_ROW]) for at in range(0, len(shown), _IN_A_ROW)]
        note = f"The number is 1 minus the mean cosine with the {NEIGHBORS} nearest images; its "
        note += f"median over all {len(collection):,} images is {median:.2f}."
        return gallery("Outliers", run, note, rows)

    records = [
        {"name": collection.name(each), "strangeness": round(float(values[each]), 4)}
        for each in order
    ]
    write_found(out, records, page)
