"""Near-duplicates: images that resemble each other as much as edited copies of one picture do.

The threshold is measured on the collection itself, without labels: how similar copies are to their
originals, and how similar other images are to their nearest neighbors. Encoders are made to forget
what edits change, and some of what tells two pictures of the same thing apart. So embeddings are
compared together with the layout of light and dark, which alone would miss crops and rotations.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import final

import numpy as np
from jaxtyping import Float32, Int64

from noneg.collection.edits import edited
from noneg.collection.embedded import Collection, thumbnails_of
from noneg.collection.neighbors import Neighbors, comparable, nearest, unit
from noneg.encoder import Encoder
from noneg.errors import NonegError
from noneg.images.source import Unreadable

COPIES = 400
"""Images that are copied to measure the threshold."""

MISSED, FALSE, FEW_FALSE = 0.05, 0.01, 0.001
"""Shares of copies that may be missed, and of other images that may be found: at most, and if this
does not cost more of the copies."""

LAYOUT = 0.5
"""Length of the layout's vector, where that of the embedding is 1: see the log of 2026-11-28."""

# Neighbors of each image that are looked at; larger groups are put together from several of them.
_NEIGHBORS = 16


@final
@dataclass(frozen=True)
class Threshold:
    """From which cosine on two images count as duplicates.

    Attributes:
        cosine: the threshold.
        found: share of edited copies that are at least so similar to their originals; None if the
            threshold was given.
        false: estimated share of images without a duplicate whose nearest neighbor is at least so
            similar; None if the threshold was given.
    """

    cosine: float
    found: float | None = None
    false: float | None = None

    def describe(self) -> str:
        """A sentence."""
        if self.found is None or self.false is None:
            return f"duplicates have a cosine of {self.cosine:.3f} or more, as asked"
        return (
            f"duplicates have a cosine of {self.cosine:.3f} or more: {self.found:.1%} of edited "
            f"copies do, and an estimated {self.false:.2%} of images without a duplicate"
        )


@final
@dataclass(frozen=True)
class Group:
    """Images that are all duplicates of one another.

    Attributes:
        members: their positions in the collection, in ascending order.
        cosine: of the two that are least similar.
    """

    members: tuple[int, ...]
    cosine: float


@final
@dataclass(frozen=True)
class Leak:
    """An image of one collection that is a duplicate of one in another.

    Attributes:
        first: position in the first collection.
        second: position in the other.
        cosine: of the two.
    """

    first: int
    second: int
    cosine: float


def find_duplicates(
    encoder: Encoder, collection: Collection, *, threshold: float | None = None, seed: int = 0
) -> tuple[list[Group], Threshold]:
    """Groups of near-duplicates, the most similar first.

    Groups do not chain: every two members of a group are duplicates. An image is in one group only.

    Args:
        encoder: that of the embeddings; it embeds the edited copies.
        collection: at least two images.
        threshold: a cosine, if it is not to be measured.
        seed: of the choice of images that are copied.

    Raises:
        NonegError: there are fewer than two images, or the threshold is no cosine.
    """
    _check(threshold)
    if len(collection) < 2:
        raise NonegError("one image alone has no duplicate: give at least two")
    vectors, copies, originals = _comparable_copies(encoder, [collection], threshold, seed)
    around = nearest(vectors[0], vectors[0], _NEIGHBORS, same=True)
    cut = _cut(threshold, vectors[0], copies, originals, around)
    return group(vectors[0], around, cut.cosine), cut


def find_leaks(
    encoder: Encoder,
    collection: Collection,
    other: Collection,
    *,
    threshold: float | None = None,
    seed: int = 0,
) -> tuple[list[Leak], Threshold]:
    """Images of `other` that are duplicates of one in `collection`, the most similar first.

    Args:
        encoder: that of the embeddings.
        collection: such as the images that one trains on; the threshold is measured here.
        other: such as the images that one tests on.
        threshold: a cosine, if it is not to be measured.
        seed: of the choice of images that are copied.

    Raises:
        NonegError: there are fewer than two images, or the threshold is no cosine.
    """
    _check(threshold)
    if len(collection) < 2:
        raise NonegError("one image alone does not tell how similar copies are: give at least two")
    vectors, copies, originals = _comparable_copies(encoder, [collection, other], threshold, seed)
    around = Neighbors(np.empty((0, 0), np.int64), np.empty((0, 0), np.float32))
    if threshold is None:
        around = nearest(vectors[0], vectors[0], 1, same=True)
    cut = _cut(threshold, vectors[0], copies, originals, around)
    across = nearest(vectors[1], vectors[0], 1)
    similar = np.flatnonzero(across.cosine[:, 0] >= cut.cosine)
    leaks = [
        Leak(int(across.index[each, 0]), int(each), float(across.cosine[each, 0]))
        for each in similar
    ]
    return sorted(leaks, key=lambda leak: (-leak.cosine, leak.first, leak.second)), cut


def measure_threshold(
    copies: Float32[np.ndarray, " copies"], others: Float32[np.ndarray, " images"]
) -> Threshold:
    """Where few different images are so similar, and most copies are.

    It is where an estimated 0.1 % of images without a duplicate pass; lower, down to 1 %, as far as
    95 % of the copies need it.

    Images that do have duplicates must not raise the threshold. So the similarity of different
    images is described by its median and its median absolute deviation, of Fisher's arctanh, which
    a quarter of duplicates hardly moves; its tail is taken to be normal.

    Args:
        copies: cosines of edited copies with their originals.
        others: cosine of each image with its nearest neighbor.
    """
    similar, different = _fisher(copies), _fisher(others)
    middle = float(np.median(different))
    deviation = max(1.4826 * float(np.median(np.abs(different - middle))), 1e-6)
    normal = NormalDist(middle, deviation)
    least, most = normal.inv_cdf(1 - FALSE), normal.inv_cdf(1 - FEW_FALSE)
    cut = float(np.clip(np.quantile(similar, MISSED), least, most))
    return Threshold(
        cosine=math.tanh(cut),
        found=float((similar >= cut).mean()),
        false=1 - normal.cdf(cut),
    )


def group(
    vectors: Float32[np.ndarray, "images width"], around: Neighbors, threshold: float
) -> list[Group]:
    """Join the most similar images first, where all members of both groups are similar enough.

    Args:
        vectors: of length 1 [N, D].
        around: the nearest neighbors of each image.
        threshold: the smallest cosine within a group.
    """
    joined = np.arange(len(vectors))
    members: dict[int, list[int]] = {}
    for first, second in _pairs(around, threshold):
        one, two = int(joined[first]), int(joined[second])
        if one == two:
            continue
        left, right = members.get(one, [one]), members.get(two, [two])
        # 1e-6, for the rounding of a product of other shapes.
        if float((vectors[left] @ vectors[right].T).min()) >= threshold - 1e-6:
            members[one] = left + right
            members.pop(two, None)
            joined[right] = one
    groups = []
    for each in members.values():
        within = vectors[each] @ vectors[each].T
        groups.append(Group(tuple(sorted(each)), float(np.clip(within.min(), -1, 1))))
    return sorted(groups, key=lambda found: (-found.cosine, found.members))


def _pairs(around: Neighbors, threshold: float) -> Iterator[tuple[int, int]]:
    """Pairs of similar images, each once, the most similar first."""
    rows, columns = np.nonzero(around.cosine >= threshold)
    others = around.index[rows, columns]
    first, second = np.minimum(rows, others), np.maximum(rows, others)
    cosine = around.cosine[rows, columns]
    pairs, where = np.unique(np.stack([first, second], 1), axis=0, return_index=True)
    order = np.argsort(-cosine[where], kind="stable")
    for one, two in pairs[order]:
        yield int(one), int(two)


def resemblance(
    embeddings: Sequence[Float32[np.ndarray, "_ width"]],
    thumbnails: Sequence[Float32[np.ndarray, "_ 64"]],
) -> tuple[Float32[np.ndarray, "_ both"], ...]:
    """Vectors of length 1 of embedding and layout, both whitened by the first collection.

    Args:
        embeddings: h of each collection [N, D].
        thumbnails: their thumbnails [N, 64].
    """
    return tuple(
        unit(np.concatenate([embedded, LAYOUT * laid_out], axis=1))
        for embedded, laid_out in zip(comparable(*embeddings), comparable(*thumbnails), strict=True)
    )


def _comparable_copies(
    encoder: Encoder, collections: Sequence[Collection], threshold: float | None, seed: int
) -> tuple[
    tuple[Float32[np.ndarray, "_ width"], ...],
    Float32[np.ndarray, "copies width"],
    Int64[np.ndarray, " copies"],
]:
    """Vectors of all collections and of edited copies of the first, and the copies' originals."""
    embeddings = [each.vectors for each in collections]
    thumbnails = [each.thumbnails for each in collections]
    if threshold is not None:
        vectors = resemblance(embeddings, thumbnails)
        return vectors, vectors[0][:0], np.empty(0, np.int64)
    collection, info = collections[0], encoder.info
    random = np.random.default_rng(seed)
    pixels, originals = [], []
    for index in np.sort(random.permutation(len(collection))[:COPIES]):
        try:
            position = int(collection.kept[index])
            pixels.append(collection.source.read(position, info.channels, info.stored_size))
            originals.append(int(index))
        except Unreadable:
            # The file has gone since it was embedded.
            continue
    if not pixels:
        raise NonegError(
            f"the images of the {collection.source.description} can be read no longer: give "
            "--threshold, or put them back"
        )
    copied = edited(np.stack(pixels), seed)
    *whole, copies = resemblance(
        [*embeddings, encoder.embed_pixels(copied)], [*thumbnails, thumbnails_of(copied)]
    )
    return tuple(whole), copies, np.array(originals, dtype=np.int64)


def _cut(
    threshold: float | None,
    vectors: Float32[np.ndarray, "images width"],
    copies: Float32[np.ndarray, "copies width"],
    originals: Int64[np.ndarray, " copies"],
    around: Neighbors,
) -> Threshold:
    if threshold is not None:
        return Threshold(threshold)
    return measure_threshold((copies * vectors[originals]).sum(axis=1), around.cosine[:, 0])


def _check(threshold: float | None) -> None:
    if threshold is not None and not -1 <= threshold <= 1:
        raise NonegError(f"the threshold {threshold} is no cosine: give a number from -1 to 1")


def _fisher(cosine: Float32[np.ndarray, " n"]) -> np.ndarray:
    # Rounding puts equal images at 1 - 1e-7 or so; more digits mean nothing.
    return np.arctanh(np.clip(cosine.astype(np.float64), -1 + 1e-6, 1 - 1e-6))
