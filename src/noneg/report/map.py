"""Embeddings in two dimensions, and the groups that they may be colored by."""

from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import final

import numpy as np
from jaxtyping import Float32, Int64
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from noneg.report.sample import Sample

COMPONENTS = 50
PERPLEXITY = 30
ITERATIONS = 500
CLUSTERS = 10


@final
@dataclass(frozen=True, eq=False)
class Grouping:
    """One way to color the map: the groups' names, largest first, and each image's group."""

    title: str
    names: tuple[str, ...]
    members: Int64[np.ndarray, " n"]


@final
@dataclass(frozen=True, eq=False)
class Projections:
    """Two maps of the same images.

    Attributes:
        tsne: [n, 2]; nearness counts, distances between groups and axes mean nothing.
        pca: [n, 2]; the two directions of largest variance.
        explained: the share of the variance that these two hold.
        components: the first principal components [n, m], m at most `COMPONENTS`.
    """

    tsne: Float32[np.ndarray, "n 2"]
    pca: Float32[np.ndarray, "n 2"]
    explained: float
    components: Float32[np.ndarray, "n m"]


def project(directions: Float32[np.ndarray, "n width"], *, seed: int) -> Projections:
    """Principal components of centered embeddings of length 1, and t-SNE of the first 50 of them.

    t-SNE (van der Maaten and Hinton 2008) is scikit-learn's, from the first two principal
    components, with perplexity 30 (fewer for under 91 images) and 500 iterations: of 2,000 images,
    1,000 iterations lowered the divergence from 1.03 to 0.95 and took half as long again.
    """
    n, width = directions.shape
    if not directions.any():
        # All in one place.
        nowhere = np.zeros((n, 2), dtype=np.float32)
        return Projections(nowhere, nowhere, 0.0, nowhere)
    components = PCA(min(COMPONENTS, n, width), random_state=seed)
    reduced = components.fit_transform(directions).astype(np.float32)
    plane = np.zeros((n, 2), dtype=np.float32)
    plane[:, : min(2, reduced.shape[1])] = reduced[:, :2]
    explained = float(components.explained_variance_ratio_[:2].sum())
    if n < 5:
        return Projections(plane, plane, explained, reduced)
    start = plane / plane[:, 0].std() * 1e-4
    tsne = TSNE(
        perplexity=min(PERPLEXITY, (n - 1) / 3),
        init=start,
        max_iter=ITERATIONS,
        random_state=seed,
    ).fit_transform(reduced)
    return Projections(tsne.astype(np.float32), plane, explained, reduced)


def cluster(components: Float32[np.ndarray, "n m"], *, seed: int) -> Int64[np.ndarray, " n"]:
    """Ten clusters by k-means, fewer where there are fewer distinct images."""
    distinct = len(np.unique(components, axis=0))
    number = min(CLUSTERS, distinct)
    found = KMeans(number, n_init=4, random_state=seed).fit_predict(components)
    members: Int64[np.ndarray, " n"] = found.astype(np.int64)
    return members


def groupings(sample: Sample, clusters: Int64[np.ndarray, " n"]) -> list[Grouping]:
    """By label and by folder, where there are any that differ, and by cluster."""
    found = []
    if sample.labels is not None:
        found.append(
            _grouped("label", [_class_name(sample, each) for each in sample.labels.tolist()])
        )
    folders = [str(PurePosixPath(name).parent) for name in sample.names]
    by_folder = _grouped("folder", folders)
    if len(by_folder.names) > 1 and not (found and _same(found[0], by_folder)):
        found.append(by_folder)
    by_cluster = _grouped("cluster", [str(each) for each in clusters])
    # Numbered by size; k-means' own numbers mean nothing.
    names = tuple(f"cluster {number}" for number in range(1, len(by_cluster.names) + 1))
    found.append(Grouping("cluster", names, by_cluster.members))
    return found


def _class_name(sample: Sample, label: int) -> str:
    known = sample.classes is not None and 0 <= label < len(sample.classes)
    return sample.classes[label] if known and sample.classes is not None else f"label {label}"


def _grouped(title: str, keys: list[str]) -> Grouping:
    sizes = Counter(keys)
    names = sorted(sizes, key=lambda name: (-sizes[name], name))
    number = {name: position for position, name in enumerate(names)}
    members = np.array([number[key] for key in keys], dtype=np.int64)
    return Grouping(title, tuple(names), members)


def _same(one: Grouping, other: Grouping) -> bool:
    """Whether both make the same groups, whatever they call them."""
    together = len(np.unique(np.stack([one.members, other.members]), axis=1).T)
    return together == len(one.names) == len(other.names)
