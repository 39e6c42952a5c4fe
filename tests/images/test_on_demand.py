"""Images decoded on demand are the same as images decoded once at the start."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noneg.errors import NonegError
from noneg.images import (
    ImageSource,
    PixelsOnDemand,
    Unreadable,
    find_source,
    load_images,
    stream_images,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve images; numbers 3, 4 and 11 cannot be read."""
    generator = np.random.default_rng(0)
    for number in range(12):
        path = tmp_path / f"{number:02}.png"
        if number in (3, 4, 11):
            path.write_text("not an image")
        else:
            pixels = generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    return tmp_path


def test_the_next_readable_image_replaces_an_unreadable_one(
    folder: Path,
) -> None:
    source = find_source(folder)
    loaded = np.asarray(load_images(source, channels=3, size=16).pixels)
    pixels = PixelsOnDemand(source, 3, 16)
    assert pixels.shape == (12, 3, 16, 16)
    # 5 (position 3 of the readable images) replaces 3 and 4; 0 replaces 11.
    expected = loaded[[0, 1, 2, 3, 3, 3, 4, 5, 6, 7, 8, 0]]
    assert np.array_equal(np.asarray(pixels), expected)
    some = np.array([11, 2, 3, 7])
    assert np.array_equal(pixels[some], expected[some])
    assert [image.name for image in pixels.skipped] == ["03.png", "04.png", "11.png"]
    read, index = pixels.read_readable(np.array([2, 3, 4, 5]))
    assert index.tolist() == [2, 5]
    assert np.array_equal(read, expected[[2, 5]])


def test_errors_if_strict_or_if_nothing_is_readable(folder: Path) -> None:
    with pytest.raises(NonegError, match=r"03\.png"):
        PixelsOnDemand(find_source(folder), 3, 16, strict=True)[np.array([2, 3])]
    for path in folder.iterdir():
        path.write_text("not an image")
    with pytest.raises(NonegError, match="None of the 12 images"):
        PixelsOnDemand(find_source(folder), 3, 16)[np.array([0])]


class Counted(ImageSource):
    """Each image shows its own number; counts how often each image was read."""

    description = "numbers"

    def __init__(self, count: int) -> None:
        self.times = [0] * count
        self.lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.times)

    def name(self, index: int) -> str:
        return str(index)

    def read(self, index: int, channels: int, size: int) -> np.ndarray:
        with self.lock:
            self.times[index] += 1
        if index == 5:
            raise Unreadable("number 5")
        return np.full((channels, size, size), index, dtype=np.uint8)

    def natural_channels(self) -> int:
        return 1

    def natural_size(self) -> int:
        return 2


def test_prefetched_images_are_read_once() -> None:
    source = Counted(10)
    pixels = PixelsOnDemand(source, 1, 2)
    first, second = np.array([7, 1]), np.array([2, 5, 0])
    pixels.prefetch(first)
    pixels.prefetch(second)
    assert pixels[first][:, 0, 0, 0].tolist() == [7, 1]
    assert pixels[second][:, 0, 0, 0].tolist() == [2, 6, 0]
    assert source.times == [1, 1, 1, 0, 0, 1, 1, 1, 0, 0]
    # By now it is known that image 5 cannot be read.
    assert pixels[np.array([5])][0, 0, 0, 0] == 6
    assert source.times[5] == 1
    assert pixels.read_readable(np.array([8, 5]))[1].tolist() == [8]
    assert source.times[8] == 1


def test_processes_that_share_a_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noneg.images.reading.available_cores", lambda: 6)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")

    def added(read: Callable[[], object]) -> int:
        before = set(threading.enumerate())
        kept = read()
        count = len(set(threading.enumerate()) - before)
        del kept
        return count

    source = Counted(1000)
    assert added(lambda: PixelsOnDemand(source, 1, 2)) == 3
    batches = stream_images(source, channels=1, size=2, batch_size=4, on_skip=lambda _: None)
    assert added(lambda: next(batches)) == 3
    batches.close()
