"""`noneg select`: which images to label first."""

from collections.abc import Sequence
from pathlib import Path

from noneg.collection.selection import Strategy, select
from noneg.commands.found import check_out, open_collection, picture, read_labels, write_found
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
    labels = None if labeled is None else read_labels(labeled, collection)[0]
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
