"""A folder of image files."""

import hashlib
import os
import stat
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8

from noneg.errors import MachineError, NonegError, printable
from noneg.images.decode import decode, read_short_side
from noneg.images.source import (
    ImageSource,
    Unreadable,
    evenly_spaced,
    is_of_the_machine,
    machine_error,
)
from noneg.images.threads import Steps, patiently, read_readable

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


class FolderSource(ImageSource):
    """All image files in a folder and its subfolders at any depth, sorted by relative path.

    If every image is in a subfolder, and at least two first-level subfolders hold images, the
    class of an image is its first-level subfolder. Otherwise there are no labels.

    Raises:
        NonegError: the folder or a subfolder cannot be listed, or there is no image in it.
    """

    def __init__(self, folder: Path) -> None:
        """List the folder, without opening an image."""
        self._folder = folder
        self.description = f"folder {printable(str(folder))}"
        self._names = patiently(partial(_find_images, folder))
        if not self._names:
            raise NonegError(
                f"There is no image in the {self.description}: noneg looks for the extensions "
                f"{', '.join(EXTENSIONS)}, also in subfolders, and ignores hidden files."
            )
        self.labels, self.classes = _find_labels(self._names)

    def __len__(self) -> int:
        """The number of image files."""
        return len(self._names)

    def name(self, index: int) -> str:
        """The path relative to the folder, with forward slashes."""
        return self._names[index]

    def read(
        self, index: int, channels: int, size: int
    ) -> UInt8[np.ndarray, "{channels} {size} {size}"]:
        """Decode a file; see `ImageSource.read`. channels is 1 or 3."""
        if channels not in (1, 3):
            raise NonegError(
                f"{channels} channels were asked for, but the files of the {self.description} can "
                "only be read with 1 (gray) or 3 (color): give images with more channels as a "
                ".npy array."
            )
        with self._open(index) as file:
            return decode(file, channels, size)

    def stamp(self) -> str | None:
        """See `ImageSource.stamp`."""
        return patiently(self._stamp)

    def _stamp(self, steps: Steps) -> str:
        steps.place = str(self._folder)
        digest = hashlib.blake2b(digest_size=16)
        for name in self._names:
            steps.count += 1
            try:
                status = os.stat(self._folder / name)
                found = f"{status.st_size} {status.st_mtime_ns}"
            except OSError:
                found = "missing"
            digest.update(f"{name}\0{found}\0".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def natural_channels(self) -> int:
        """Three, because a folder may hold gray and color images."""
        return 3

    def natural_size(self) -> int:
        """The median short side of at most 64 images, from their headers."""
        return int(
            statistics.median(read_readable(self, evenly_spaced(len(self)), self._read_short_side))
        )

    def _read_short_side(self, index: int) -> int:
        with self._open(index) as file:
            return read_short_side(file)

    @contextmanager
    def _open(self, index: int) -> Iterator[BinaryIO]:
        path = self._folder / self._names[index]
        try:
            with open(path, "rb", opener=_at_once) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise Unreadable("not a file, but a pipe or a device")
                yield file
        except FileNotFoundError as error:
            if not self._folder.is_dir():
                raise MachineError(f"the {self.description} has vanished: put it back") from error
            raise Unreadable("the file is gone, or is a link to nothing") from None
        except OSError as error:
            if is_of_the_machine(error):
                raise machine_error(error, str(path)) from error
            raise Unreadable(f"cannot be opened: {error.strerror or error}") from error


def _at_once(path: str, flags: int) -> int:
    """Open a file; a pipe, which a link may name, would block until somebody writes to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _find_labels(names: tuple[str, ...]) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    """The label of each image, int64, and the classes; None if the folders are no classes."""
    if not all("/" in name for name in names):
        return None, None
    subfolders = [name.partition("/")[0] for name in names]
    classes = tuple(sorted(set(subfolders)))
    if len(classes) < 2:
        return None, None
    numbers = {subfolder: number for number, subfolder in enumerate(classes)}
    return np.array([numbers[subfolder] for subfolder in subfolders], dtype=np.int64), classes


def _find_images(folder: Path, steps: Steps) -> tuple[str, ...]:
    """Sorted relative names. Each directory is entered once, if possible not through a link."""
    names: list[str] = []
    seen: set[tuple[int, int]] = set()
    # Links to directories are followed after all real directories. So loops end, and a link next
    # to its own target never counts the images twice.
    directories, links = [""], list[str]()
    while directories or links:
        prefix = directories.pop() if directories else links.pop(0)
        steps.place = str(folder / prefix)
        try:
            status = os.stat(folder / prefix)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder / prefix) as entries:
                visible = []
                for entry in entries:
                    steps.count += 1
                    if not entry.name.startswith("."):
                        visible.append(entry)
        except OSError as error:
            raise NonegError(
                f"The folder {printable(str(folder / prefix))} cannot be listed "
                f"({error.strerror or error}): make it readable for you, or move it away."
            ) from error
        for entry in sorted(visible, key=lambda entry: entry.name):
            steps.count += 1
            name = prefix + entry.name
            if entry.is_dir():
                (links if entry.is_symlink() else directories).append(name + "/")
            elif name.lower().endswith(EXTENSIONS) and (entry.is_file() or entry.is_symlink()):
                names.append(name)
    return tuple(sorted(names))
