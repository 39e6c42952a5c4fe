"""The embeddings of a data set, which are kept beside it for the next command."""

import hashlib
import json
import operator
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, SupportsIndex, final

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch.nn.functional import interpolate

from noneg.encoder import Encoder
from noneg.errors import NonegError, printable
from noneg.files import usual_mode, whole_or_not_at_all
from noneg.images import ImageSource, Skipped, find_source
from noneg.images.find import Data

THUMBNAIL = 8
"""Side of the thumbnails, in pixels."""

FOLDER = ".noneg"
"""Beside the images, and hidden, so that it is never taken for a folder of images."""


@final
@dataclass(frozen=True, eq=False)
class Collection:
    """Images that could be read, with their embeddings, in the order of the source.

    Attributes:
        source: where the images are from.
        kept: the position of each image in the source [N].
        vectors: h [N, D].
        thumbnails: the layout of each picture [N, 64], see `thumbnails_of`.
        skipped: the images that could not be read.
    """

    source: ImageSource
    kept: Int64[np.ndarray, " images"]
    vectors: Float32[np.ndarray, "images width"]
    thumbnails: Float32[np.ndarray, "images 64"]
    skipped: tuple[Skipped, ...]

    def __len__(self) -> int:
        """The number of images, N."""
        return len(self.kept)

    def name(self, index: SupportsIndex) -> str:
        """The name of one of the N images, printable."""
        return printable(self.source.name(int(self.kept[operator.index(index)])))

    @property
    def labels(self) -> Int64[np.ndarray, " images"] | None:
        """The label of each image, from 0; negative without one. None if no label is known."""
        return None if self.source.labels is None else self.source.labels[self.kept]

    def read(self, index: SupportsIndex, size: int) -> np.ndarray:
        """The pixels of an image, uint8 [C, size, size].

        Raises:
            Unreadable: it can be read no longer.
        """
        return self.source.read(
            int(self.kept[operator.index(index)]), self.source.natural_channels(), size
        )


def embed_collection(
    encoder: Encoder,
    data: Data,
    *,
    source: ImageSource | None = None,
    cache: bool = True,
    batch_size: int = 256,
    device: str | torch.device = "auto",
    progress: bool = False,
) -> Collection:
    """Embed all images that can be read, or take their embeddings from an earlier time.

    Embeddings are kept in `.noneg/` beside a folder or file, and in `~/.cache/noneg` for a data set
    with a name. They count only for the same encoder and the same images: the same names, sizes
    and times of change. What cannot be written there is not kept.

    Args:
        encoder: computes the embeddings.
        data: as for `Encoder.embed`.
        source: the images in `data`, if they were found already.
        cache: whether to read and to keep embeddings.
        batch_size: images per batch.
        device: "auto" is a GPU if there is one.
        progress: show a progress bar on stderr.

    Raises:
        NonegError: the data cannot be found, no image can be read, or embeddings are not finite.
    """
    source = find_source(data) if source is None else source
    file = cache_file(encoder, data) if cache else None
    stamp = source.stamp() if file is not None else None
    if file is not None and stamp is not None:
        known = _read(file, stamp, source, encoder.info.features)
        if known is not None:
            return known
    kept: list[int] = []
    skipped: list[Skipped] = []
    vectors = np.empty((len(source), encoder.info.features), dtype=np.float32)
    thumbnails: list[np.ndarray] = []
    for indices, block in encoder.embed_source(
        source,
        batch_size,
        device,
        progress,
        False,
        skipped,
        lambda pixels: thumbnails.append(thumbnails_of(pixels)),
    ):
        vectors[len(kept) : len(kept) + len(indices)] = block
        kept += indices
    vectors = vectors[: len(kept)]
    if not np.isfinite(vectors).all():
        raise NonegError("the encoder's embeddings are not finite: the training diverged")
    found = Collection(
        source,
        np.array(kept, dtype=np.int64),
        vectors,
        np.concatenate(thumbnails),
        tuple(skipped),
    )
    if file is not None and stamp is not None:
        # A read-only disk, or a full one, only costs the time of the next command.
        with suppress(OSError, NonegError, SafetensorError):
            _write(file, stamp, found)
    return found


def thumbnails_of(
    pixels: UInt8[np.ndarray, "images channels side side"],
) -> Float32[np.ndarray, "images 64"]:
    """8 x 8 gray pixels of each picture, minus their mean, at length 1; 0 for one of one color.

    Where light and dark are, which encoders forget, and which edited copies have in common.

    Args:
        pixels: uint8 [N, C, S, S].
    """
    gray = torch.from_numpy(pixels).float().mean(dim=1, keepdim=True)
    small = interpolate(gray, size=(THUMBNAIL, THUMBNAIL), mode="bilinear", antialias=True)
    flat = small.flatten(1)
    flat = flat - flat.mean(dim=1, keepdim=True)
    # A gray level or two is noise.
    length = flat.norm(dim=1, keepdim=True)
    found: Float32[np.ndarray, "images 64"] = (flat / length.clamp_min(THUMBNAIL)).numpy()
    return found


def fingerprint(encoder: Encoder) -> str:
    """Hexadecimal digits that change with anything that changes an embedding."""
    digest = hashlib.blake2b(digest_size=16)
    info = asdict(encoder.info)
    deciding = ("backbone", "channels", "size", "stored_size", "mean", "std", "norm")
    digest.update(json.dumps([info[name] for name in (*deciding, "interpolation")]).encode())
    if encoder.precision != "float32":
        digest.update(encoder.precision.encode())
    for name, value in encoder.module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def cache_file(encoder: Encoder, data: Data) -> Path | None:
    """Where the embeddings of images are kept; None for images in memory."""
    if not isinstance(data, str | os.PathLike):
        return None
    path = Path(data).expanduser()
    if path.exists():
        place = path.resolve()
        return place.parent / FOLDER / f"{place.name}-{fingerprint(encoder)[:16]}.safetensors"
    home = Path(os.environ.get("NONEG_CACHE") or "~/.cache/noneg").expanduser()
    name = os.fspath(data).lower()
    return home / "embeddings" / f"{name}-{fingerprint(encoder)[:16]}.safetensors"


def _read(file: Path, stamp: str, source: ImageSource, width: int) -> Collection | None:
    """None if there is nothing, or it is damaged, or of other images."""
    try:
        with safe_open(file, framework="numpy") as stored:
            fields: dict[str, Any] = stored.metadata() or {}
            if fields.get("stamp") != stamp:
                return None
            kept, vectors = stored.get_tensor("kept"), stored.get_tensor("vectors")
            thumbnails = stored.get_tensor("thumbnails")
        skipped = [Skipped(str(name), str(why)) for name, why in json.loads(fields["skipped"])]
    except Exception:  # a damaged file can raise almost any, and only costs time
        return None
    fits = (
        vectors.shape == (len(kept), width)
        and thumbnails.shape == (len(kept), THUMBNAIL**2)
        and (vectors.dtype, thumbnails.dtype, kept.dtype) == (np.float32, np.float32, np.int64)
        and len(kept) > 0
        and bool((kept >= 0).all() and (kept < len(source)).all())
        and bool(np.isfinite(vectors).all())
    )
    return Collection(source, kept, vectors, thumbnails, tuple(skipped)) if fits else None


def _write(file: Path, stamp: str, found: Collection) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    skipped = [(printable(each.name), printable(each.reason)) for each in found.skipped]
    with whole_or_not_at_all(file) as unfinished, usual_mode(unfinished):
        save_file(
            {
                "kept": found.kept,
                "vectors": np.ascontiguousarray(found.vectors),
                "thumbnails": found.thumbnails,
            },
            unfinished,
            metadata={"stamp": stamp, "skipped": json.dumps(skipped)},
        )
