"""An approximate index for collections of many millions, and the recall that it was measured at.

It is faiss's inverted file (Jégou et al. 2011; faiss, arXiv 2401.08281): k-means splits the vectors
into cells, and only the cells nearest to a query are read. Within them, search is exact.
"""

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Float32

from noneg.collection.neighbors import Neighbors, nearest
from noneg.errors import NonegError, printable
from noneg.files import read_fields, whole_or_not_at_all, write_json

MEASURED = 200
"""Images of the collection whose exact neighbors are compared with those of the index."""

_PER_CENTER = 50
"""Vectors that k-means sees for each cell; faiss asks for 39 at least."""


@final
@dataclass(frozen=True, eq=False)
class ApproximateIndex:
    """Vectors of length 1 in cells.

    Attributes:
        cells: faiss's index.
        recall: the share of the exact ten nearest that it found, for images of the collection.
        of: a digest of the vectors.
    """

    cells: Any
    recall: float
    of: str

    def __len__(self) -> int:
        """The number of vectors."""
        return int(self.cells.ntotal)

    def nearest(self, queries: Float32[np.ndarray, "queries width"], k: int) -> Neighbors:
        """Nearly the k nearest; see `noneg.collection.neighbors.nearest`.

        Where the cells that are read hold fewer than k vectors, the index is -1 and the cosine -1.

        Args:
            queries: vectors of length 1 [Q, D].
            k: neighbors per query; if there are fewer, all.

        Raises:
            NonegError: k is below 1.
        """
        k = min(k, len(self))
        if k < 1:
            raise NonegError("there is no other image to find: give a k of at least 1")
        cosine, index = self.cells.search(np.ascontiguousarray(queries), k)
        return Neighbors(index.astype(np.int64), np.clip(cosine, -1, 1))

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write the index, and beside it its recall and digests, as JSON.

        Raises:
            NonegError: they cannot be written.
        """
        file = Path(file)
        with whole_or_not_at_all(file) as unfinished:
            try:
                _faiss().write_index(self.cells, os.fspath(unfinished))
            except RuntimeError as error:
                # faiss's own words for a full disk or a missing folder.
                raise OSError(0, str(error).splitlines()[0]) from error
            digest = _digest(unfinished)
        write_json(_about(file), {"recall": self.recall, "blake2b": digest, "of": self.of})


def build_index(
    vectors: Float32[np.ndarray, "images width"], *, least_recall: float = 0.95, seed: int = 0
) -> ApproximateIndex:
    """Build an index that reads as many cells as the recall needs.

    Args:
        vectors: of length 1 [N, D], at least two; see `noneg.collection.neighbors.comparable`.
        least_recall: of the ten nearest, in (0, 1]; at 1 it may have to read all cells.
        seed: chooses the images that k-means sees, and those that the recall is measured with.

    Raises:
        NonegError: faiss is not installed, or there are fewer than two vectors.
    """
    faiss = _faiss()
    count, width = vectors.shape
    if count < 2:
        raise NonegError("an index needs at least two images")
    order = np.random.default_rng(seed).permutation(count)
    cells = max(1, min(int(4 * count**0.5), count // _PER_CENTER))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = seed
    index.train(vectors[np.sort(order[: cells * _PER_CENTER])])
    index.add(vectors)
    asked = vectors[order[:MEASURED]]
    k = min(10, count)
    exact = nearest(asked, vectors, k).index
    index.nprobe, recall = 1, 0.0
    while True:
        _, found = index.search(asked, k)
        hits = [len(set(one) & set(two)) for one, two in zip(exact, found, strict=True)]
        recall = sum(hits) / exact.size
        if recall >= least_recall or index.nprobe >= cells:
            return ApproximateIndex(index, recall, _digest_of(vectors))
        index.nprobe = min(2 * index.nprobe, cells)


def load_index(file: str | os.PathLike[str]) -> ApproximateIndex:
    """Load what `ApproximateIndex.save` wrote.

    Raises:
        NonegError: faiss is not installed, or a file is missing, damaged, or of another index.
    """
    file, faiss = Path(file), _faiss()
    try:
        about = read_fields(_about(file))
        recall, of = float(about["recall"]), str(about["of"])
        # faiss would read a damaged file to the end of the memory.
        if _digest(file) != about["blake2b"]:
            raise ValueError("it is damaged")
        index = faiss.read_index(os.fspath(file))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise NonegError(
            f"the index {printable(str(file))} cannot be read ({printable(str(error))}): remove it "
            "and build it again"
        ) from error
    return ApproximateIndex(index, recall, of)


def kept_index(file: Path | None, vectors: Float32[np.ndarray, "images width"]) -> ApproximateIndex:
    """The index of these vectors, from an earlier time if it was kept.

    Args:
        file: where it is kept; None to keep nothing.
        vectors: of length 1 [N, D].

    Raises:
        NonegError: see `build_index`.
    """
    if file is None:
        return build_index(vectors)
    with suppress(OSError, ValueError, NonegError):
        # The index itself may be large.
        if read_fields(_about(file)).get("of") == _digest_of(vectors):
            return load_index(file)
    index = build_index(vectors)
    # A read-only disk, or a full one, only costs the time of the next command.
    with suppress(OSError, NonegError):
        file.parent.mkdir(parents=True, exist_ok=True)
        index.save(file)
    return index


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise NonegError(
            "faiss is not installed, which approximate search needs: pip install 'noneg[index]', "
            "or leave --approximate out"
        ) from None
    return faiss


def _about(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")


def _digest_of(vectors: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(vectors).data, digest_size=16).hexdigest()


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
