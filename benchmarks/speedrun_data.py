"""The images of the speedrun: a part to train on, and a held-out part or the test set to score on.

Development scores are of images that are held out of the training set. Only `open_test` reads a
test set, for a commit that is named beforehand.
"""

import gzip
import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, final

import numpy as np

import noneg
from noneg.images import Images, ImageSource, find_source, load_images
from noneg.training.plan import choose_size, stored_size

REPOSITORY = Path(__file__).resolve().parents[1]
TABLE = Path("benchmarks/results/speedrun.csv")
HELD_OUT, HELD_OUT_SEED = 5_000, 20_261_124
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")

Split = Literal["dev", "test"]


@final
@dataclass(frozen=True)
class Parts:
    """Labeled images of one size: to train on and to learn probes from, and to score on."""

    train: Images
    scored: Images


def held_out(labels: np.ndarray, *, most: int = HELD_OUT, share: float = 0.1) -> np.ndarray:
    """Mark `most` images, or a share if that is fewer; every class in proportion, by a fixed seed.

    Args:
        labels: int [N], classes.
        most: the largest number of images that is held out.
        share: the largest share of the images that is held out.

    Returns:
        bool [N], true for the images that are held out.
    """
    count = min(most, int(share * len(labels)))
    shuffled = np.random.default_rng(HELD_OUT_SEED).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    marked = np.zeros(len(labels), dtype=bool)
    # In the middles of `count` equal stretches, so that every class gives its share, +-1.
    marked[by_class[(2 * np.arange(count) + 1) * len(labels) // (2 * max(count, 1))]] = True
    return marked


def load_dev(name: str, place: Path | None) -> Parts:
    """The training set without the held-out images, and these."""
    images = _load(find_part(name, place, "train"))
    assert images.labels is not None
    out = held_out(images.labels)
    return Parts(choose(images, ~out), choose(images, out))


def open_test(name: str, place: Path | None, commit: str) -> Parts:
    """The whole training set and the test set, for a checkout of exactly this commit.

    Raises:
        SystemExit: the checkout is at another commit, or has changes.
    """
    refuse_unless(commit, *checkout())
    train = _load(find_part(name, place, "train"))
    channels, side = train.pixels.shape[1:3]
    source = find_part(name, place, "test")
    return Parts(train, load_images(source, channels=channels, size=side))


def find_part(name: str, place: Path | None, split: Literal["train", "test"]) -> ImageSource:
    """The images of a data set that is named, in a folder with train/ and test/, or IDX files."""
    if place is None and name == "fashion_mnist" and DEBIAN_FASHION.is_dir():
        place = DEBIAN_FASHION
    if place is None:
        return find_source(name, split=split)
    if (place / split).is_dir():
        return find_source(place / split)
    stem = {"train": "train", "test": "t10k"}[split]
    return find_source(
        _read_idx(place, f"{stem}-images-idx3-ubyte"),
        labels=_read_idx(place, f"{stem}-labels-idx1-ubyte").astype(np.int64),
    )


def checkout() -> tuple[str, bool]:
    """The commit of the checkout, and whether it has no changes besides tables of results.

    Raises:
        SystemExit: noneg is imported from somewhere else.
    """
    if not Path(noneg.__file__).is_relative_to(REPOSITORY):
        raise SystemExit(
            f"noneg is imported from {Path(noneg.__file__).parent}, not from this checkout: set "
            f"PYTHONPATH={REPOSITORY / 'src'}"
        )
    # Rows are appended while the benchmark runs.
    status = _git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    return _git("rev-parse", "HEAD"), not status


def refuse_unless(named: str, head: str, is_clean: bool) -> None:
    """Exit unless the named commit is the checkout's, without changes.

    Args:
        named: 7 to 40 hexadecimal digits. HEAD or a branch would always be right, and name nothing.
        head: the commit of the checkout, 40 digits.
        is_clean: whether the checkout has no changes.
    """
    if not re.fullmatch(r"[0-9a-f]{7,40}", named):
        raise SystemExit(f"--open-test wants a commit's digits, at least 7, not {named}")
    if not head.startswith(named):
        raise SystemExit(f"--open-test {named}, but the checkout is at {head}: check it out first")
    if not is_clean:
        raise SystemExit("--open-test wants a checkout without changes: commit or remove them")


def _load(source: ImageSource) -> Images:
    natural = source.natural_size()
    size = stored_size(choose_size(natural), natural)
    images = load_images(source, channels=source.natural_channels(), size=size)
    if images.labels is None:
        raise SystemExit(f"{source.description} has no labels: the speedrun needs them for scores")
    return images


def choose(images: Images, chosen: np.ndarray) -> Images:
    assert images.labels is not None
    return replace(
        images,
        pixels=images.pixels[chosen],
        labels=images.labels[chosen],
        names=tuple(np.asarray(images.names)[chosen].tolist()),
        factors=None,
    )


def _read_idx(place: Path, name: str) -> np.ndarray:
    """The array in an IDX file of bytes, which may be gzipped."""
    path = place / name if (place / name).exists() else place / f"{name}.gz"
    if not path.exists():
        raise SystemExit(f"{place} has neither train/ and test/ nor {name}.gz")
    data = path.read_bytes()
    data = gzip.decompress(data) if path.suffix == ".gz" else data
    dimensions = data[3]
    shape = np.frombuffer(data, ">u4", dimensions, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
