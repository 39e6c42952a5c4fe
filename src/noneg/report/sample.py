"""The images that the page shows, in memory, with their embeddings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from noneg.encoder import Encoder
from noneg.errors import NonegError, printable
from noneg.evaluation.scores import sample_images
from noneg.images import Images, find_source, images_on_demand
from noneg.records.contents import RunFiles
from noneg.report.numbers import count


@final
@dataclass(frozen=True, eq=False)
class Sample:
    """Images and their embeddings, all in the same order.

    Attributes:
        pixels: uint8 [n, C, S, S].
        names: relative paths or indices, printable.
        labels: int64 [n], from 0; None without labels.
        classes: the name of each label, if known.
        factors: the factors that each image was drawn from, each [n].
        total: how many images the run has; these n are a random choice.
        embeddings: h [n, D].
        directions: `embeddings` minus their mean, at length 1 [n, D]; dot products are cosines.
    """

    pixels: UInt8[np.ndarray, "n channels side side"]
    names: tuple[str, ...]
    labels: Int64[np.ndarray, " n"] | None
    classes: tuple[str, ...] | None
    factors: Mapping[str, np.ndarray] | None
    total: int
    embeddings: Float32[np.ndarray, "n width"]
    directions: Float32[np.ndarray, "n width"]

    def __len__(self) -> int:
        """The number of images, n."""
        return len(self.pixels)

    @property
    def share(self) -> str:
        """How many of the run's images these are, in words."""
        if len(self) == self.total:
            return f"all {count(self.total, 'image')}"
        return f"a random sample of {len(self):,} of the {count(self.total, 'image')}"


def find_images(run: RunFiles, encoder: Encoder) -> Images:
    """The images that the run was trained on; they are read later.

    Raises:
        NonegError: they are gone, or were only in memory.
    """
    data = run.settings.get("data")
    if not isinstance(data, str):
        raise NonegError("config.yaml does not say where the images are")
    if data.startswith("<"):
        raise NonegError(f"the images were {data} in memory, not in a file")
    source = find_source(data)
    return images_on_demand(source, channels=encoder.info.channels, size=encoder.info.stored_size)


def embed_sample(images: Images, encoder: Encoder, *, most: int, seed: int) -> Sample:
    """Read and embed a random choice of at most `most` images.

    Raises:
        NonegError: an embedding is not finite, or no image can be read.
    """
    total = len(images.pixels)
    images = sample_images(images, most, seed=seed)
    pixels = np.asarray(images.pixels)
    embeddings = encoder.embed_pixels(pixels)
    if not np.isfinite(embeddings).all():
        raise NonegError("the encoder's embeddings are not finite: the training diverged")
    return Sample(
        pixels=pixels,
        names=tuple(printable(name) for name in images.names),
        labels=images.labels,
        classes=None if images.classes is None else tuple(map(printable, images.classes)),
        factors=images.factors,
        total=total,
        embeddings=embeddings,
        directions=directions(embeddings),
    )


def directions(embeddings: Float32[np.ndarray, "n width"]) -> Float32[np.ndarray, "n width"]:
    """Embeddings minus their mean, at length 1; with the mean, all cosines would be close to 1."""
    centered = embeddings - embeddings.mean(axis=0)
    length = np.linalg.norm(centered, axis=1, keepdims=True)
    # Equal embeddings differ from their mean by rounding errors only: they have no direction.
    rounding = 1e-6 * np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit: Float32[np.ndarray, "n width"] = np.where(length > rounding, centered, 0) / np.maximum(
        length, 1e-30
    )
    return unit.astype(np.float32)
