"""`noneg search`: the images of a collection that are most similar to other pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from noneg.collection.embedded import cache_file
from noneg.collection.search import search, search_approximately
from noneg.commands.found import check_out, open_collection, picture, shown_picture, write_found
from noneg.errors import NonegError, printable
from noneg.images.decode import decode
from noneg.images.source import Unreadable
from noneg.report.gallery import Row, gallery

_SIDE = 96
_MANY = 1_000_000


def run(
    *,
    run: str,
    backbone: str | None,
    data: str,
    queries: Sequence[Path],
    count: int,
    out: Sequence[Path],
    device: str,
    cache: bool,
    approximate: bool,
) -> None:
    """Print the nearest images of each query, and write them to files.

    Raises:
        NonegError: there is no encoder, a query is no image, or no image can be read.
    """
    check_out(out)
    encoder, collection = open_collection(run, backbone, data, device, cache)
    info = encoder.info
    if info.channels not in (1, 3):
        raise NonegError(
            f"the encoder takes images of {info.channels} channels, which picture files do not "
            "have: use noneg.collection.search in Python"
        )
    pixels = np.stack([_read(query, info.channels, info.stored_size) for query in queries])
    asked = encoder.embed_pixels(pixels, device=device)
    if approximate:
        kept = cache_file(encoder, data) if cache else None
        file = None if kept is None else kept.with_suffix(".faiss")
        found, recall = search_approximately(collection.vectors, asked, count, file=file)
        print(f"the index finds {recall:.1%} of the ten nearest, measured with its own images")
    else:
        found = search(collection.vectors, asked, count)
        if len(collection) > _MANY:
            print(
                f"searched all {len(collection):,} images; for many queries, --approximate builds "
                "an index"
            )
    records = [
        {"query": printable(str(query)), "rank": rank + 1, "name": collection.name(int(index))}
        | {"cosine": round(float(cosine), 4)}
        for query, indices, cosines in zip(queries, found.index, found.cosine, strict=True)
        for rank, (index, cosine) in enumerate(zip(indices, cosines, strict=True))
        if index >= 0
    ]
    for record in records:
        if record["rank"] == 1:
            print(f"\n{record['query']}")
        print(f"{record['rank']:>6}  {record['cosine']:.3f}  {record['name']}")

    def page() -> str:
        rows = [
            Row(
                [
                    picture(collection, int(each), f"{cosine:.2f}")
                    for each, cosine in zip(indices, cosines, strict=True)
                    if each >= 0
                ],
                first=shown_picture(_read(query, info.channels, _SIDE), query.name),
            )
            for query, indices, cosines in zip(queries, found.index, found.cosine, strict=True)
        ]
        note = "On the left the query; then the images with the largest cosine of whitened "
        note += f"embeddings, of the {len(collection):,} in the {collection.source.description}."
        return gallery("Search", f"{run}", note, rows)

    write_found(out, records, page)


def _read(query: Path, channels: int, size: int) -> np.ndarray:
    try:
        with query.open("rb") as file:
            return decode(file, channels, size)
    except OSError as error:
        raise NonegError(
            f"the query {printable(str(query))} cannot be opened ({error.strerror or error}): give "
            "picture files"
        ) from None
    except Unreadable as error:
        raise NonegError(
            f"the query {printable(str(query))} cannot be read ({error}): give picture files"
        ) from None
