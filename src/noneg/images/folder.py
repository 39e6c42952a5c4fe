"""A folder of image files."""

import os
import statistics
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from noneg.errors import NonegError
from noneg.images.decode import decode, short_side
from noneg.images.source import ImageSource, Unreadable, printable, spread

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


class FolderSource(ImageSource):
    """All image files below a folder, at any depth, sorted by relative path.

    Labels: where every image lies in a subfolder, and at least two subfolders of the first level
    hold images, an image's class is its first-level subfolder.

    Raises:
        NonegError: the folder, or one below it, cannot be listed, or there is no image in it.
    """

    def __init__(self, folder: Path) -> None:
        """List the folder; no image is opened yet."""
        self._folder = folder
        self.description = f"folder {printable(str(folder))}"
        self._names = _find_images(folder)
        if not self._names:
            raise NonegError(
                f"There is no image in the {self.description}: looked at every depth for files "
                f"ending in {', '.join(ENDINGS)} (hidden ones are ignored)."
            )
        self.labels, self.classes = _labels_of(self._names)

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
                "be read with 1 (gray) or 3 (color); give more channels as a .npy array."
            )
        try:
            with open(self._folder / self._names[index], "rb") as file:
                return decode(file, channels, size)
        except FileNotFoundError:
            raise Unreadable("the file is gone, or a link to nothing") from None
        except OSError as error:
            raise Unreadable(f"cannot be opened: {error.strerror or error}") from error

    def natural_channels(self) -> int:
        """Three: a folder may hold any mixture."""
        return 3

    def natural_size(self) -> int:
        """The median short side of at most 64 images, from their headers."""
        sides = []
        for index in spread(len(self)):
            try:
                with open(self._folder / self._names[index], "rb") as file:
                    side = short_side(file)
            except OSError:
                continue
            if side:
                sides.append(side)
        if not sides:
            raise NonegError(
                f"None of the images looked at in the {self.description} can be read, "
                f"{printable(self._names[0])} for one: check that they open in an image viewer."
            )
        return int(statistics.median(sides))


def _labels_of(names: tuple[str, ...]) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    if not all("/" in name for name in names):
        return None, None
    firsts = [name.partition("/")[0] for name in names]
    classes = tuple(sorted(set(firsts)))
    if len(classes) < 2:
        return None, None
    numbers = {first: number for number, first in enumerate(classes)}
    return np.array([numbers[first] for first in firsts], dtype=np.int64), classes


def _find_images(folder: Path) -> tuple[str, ...]:
    """Sorted relative names. Every directory is entered once, by its real path if it has one."""
    names: list[str] = []
    seen: set[tuple[int, int]] = set()
    # Links to directories wait until all real directories were seen: a loop then ends by itself,
    # and a link beside its own target never counts the images twice.
    waiting, links = [""], list[str]()
    while waiting or links:
        prefix = waiting.pop() if waiting else links.pop(0)
        try:
            status = os.stat(folder / prefix)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder / prefix) as entries:
                visible = sorted(
                    (entry for entry in entries if not entry.name.startswith(".")),
                    key=lambda entry: entry.name,
                )
        except OSError as error:
            raise NonegError(
                f"The folder {printable(str(folder / prefix))} cannot be listed "
                f"({error.strerror or error}): give yourself the right to read it, or move it away."
            ) from error
        for entry in visible:
            name = prefix + entry.name
            if entry.is_dir():
                (links if entry.is_symlink() else waiting).append(name + "/")
            elif name.lower().endswith(ENDINGS) and (entry.is_file() or entry.is_symlink()):
                names.append(name)
    return tuple(sorted(names))
