"""`noneg clusters`: groups of similar images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from noneg.collection.clusters import Algorithm, find_clusters
from noneg.commands.found import check_out, open_collection, picture, write_found
from noneg.report.gallery import Row, gallery

_IN_A_ROW = 12


def run(
    *,
    run: str,
    backbone: str | None,
    data: str,
    count: int | None,
    algorithm: Algorithm,
    seed: int,
    out: Sequence[Path],
    device: str,
    cache: bool,
) -> None:
    """Print the sizes of the clusters, and write the cluster of each image to files.

    Raises:
        NonegError: there is no encoder, there are too few images, or no such number of clusters.
    """
    check_out(out)
    _, collection = open_collection(run, backbone, data, device, cache)
    found = find_clusters(collection.vectors, count=count, algorithm=algorithm, seed=seed)
    numbers = np.unique(found[found >= 0])
    alone = int((found < 0).sum())
    print(f"{len(numbers)} clusters{f', and {alone:,} images in none' if alone else ''}")
    for number in numbers:
        members = np.flatnonzero(found == number)
        print(f"{number:>4}  {len(members):>8,} images, such as {collection.name(members[0])}")

    def page() -> str:
        random = np.random.default_rng(seed)
        rows = []
        for number in numbers:
            members = np.flatnonzero(found == number)
            shown = np.sort(random.permutation(members)[:_IN_A_ROW])
            title = f"Cluster {number}: {len(members):,} images"
            rows.append(Row([picture(collection, each) for each in shown], title=title))
        note = f"A random choice of the images of each cluster ({algorithm})."
        return gallery("Clusters", run, note, rows)

    records = [
        {"name": collection.name(index), "cluster": int(cluster)}
        for index, cluster in enumerate(found)
    ]
    write_found(out, records, page)
