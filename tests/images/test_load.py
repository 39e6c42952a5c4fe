"""Loading and streaming: parallel, in order, aligned, in memory or in a file."""

import gc
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noneg.errors import NonegError
from noneg.images import (
    ImageSource,
    Skipped,
    Unreadable,
    find_source,
    load_images,
    stream_images,
    write_skipped,
)
from noneg.images import load as load_module
from noneg.images.free_memory import _container, _machine, available_memory

COUNT = 150
BROKEN = (0, 70, 71, 149)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """150 files of noise in three classes; four of them are empty."""
    generator = np.random.default_rng(0)
    for index in range(COUNT):
        path = tmp_path / "data" / "abc"[index // 50] / f"{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if index in BROKEN:
            path.touch()
        else:
            pixels = generator.integers(0, 256, (10, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    return tmp_path / "data"


def readable_names() -> list[str]:
    return [f"{'abc'[i // 50]}/{i:03}.png" for i in range(COUNT) if i not in BROKEN]


def test_skipped_images_are_left_out_of_everything(folder: Path) -> None:
    source = find_source(folder)
    images = load_images(source, channels=3, size=8)
    assert images.pixels.shape == (COUNT - len(BROKEN), 3, 8, 8)
    assert list(images.names) == readable_names()
    assert images.labels is not None
    assert images.classes is not None
    assert [images.classes[label] for label in images.labels] == [name[0] for name in images.names]
    assert images.skipped == tuple(
        Skipped(f"{'abc'[index // 50]}/{index:03}.png", "empty file") for index in BROKEN
    )
    for position in (0, 69, 100, -1):
        index = int(images.names[position][2:5])
        assert np.array_equal(images.pixels[position], source.read(index, 3, 8))


def test_images_in_a_file_equal_images_in_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = find_source(folder)
    cache_file = folder.parent / "pixels.bin"
    in_memory = load_images(source, channels=3, size=8, cache_file=cache_file)
    assert not isinstance(in_memory.pixels, np.memmap)
    assert not cache_file.exists()
    monkeypatch.setattr(load_module, "available_memory", lambda: 4 * COUNT * 3 * 8 * 8 - 4)
    in_file = load_images(source, channels=3, size=8, cache_file=cache_file)
    assert isinstance(in_file.pixels, np.memmap)
    assert np.array_equal(in_memory.pixels, in_file.pixels)
    before = cache_file.read_bytes()
    in_file.pixels[:] = 0
    in_file.pixels.flush()
    assert cache_file.read_bytes() == before
    assert in_memory.names == in_file.names
    assert cache_file.stat().st_size == in_memory.pixels.nbytes
    assert sorted(path.name for path in folder.parent.iterdir()) == ["data", "pixels.bin"]


def test_an_array_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    monkeypatch.setattr(load_module, "available_memory", lambda: 1000)
    source = find_source(array)
    images = load_images(source, channels=3, size=8, cache_file=tmp_path / "pixels.bin")
    assert isinstance(images.pixels, np.memmap)
    assert np.array_equal(images.pixels, array.transpose(0, 3, 1, 2))


def test_too_large_for_memory_without_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "available_memory", lambda: 1000)
    with pytest.raises(NonegError, match=r"150 images.*GiB.*cache file"):
        load_images(find_source(folder), channels=3, size=8)
    with pytest.raises(NonegError, match=r"missing/pixels.bin cannot be written"):
        load_images(
            find_source(folder), channels=3, size=8, cache_file=folder / "missing/pixels.bin"
        )


def test_an_unfinished_file_is_removed_and_an_old_one_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_module, "available_memory", lambda: 1000)
    cache_file = folder.parent / "pixels.bin"
    cache_file.write_text("old")
    with pytest.raises(NonegError):
        load_images(find_source(folder), channels=3, size=8, strict=True, cache_file=cache_file)
    assert cache_file.read_text() == "old"
    assert sorted(path.name for path in folder.parent.iterdir()) == ["data", "pixels.bin"]


def test_strict_names_the_first_bad_image(folder: Path) -> None:
    (folder / "a" / "000.png").unlink()
    with pytest.raises(NonegError, match=r"b/070\.png.*empty file"):
        load_images(find_source(folder), channels=3, size=8, strict=True)
    batches = stream_images(
        find_source(folder), channels=3, size=8, batch_size=9, strict=True, on_skip=print
    )
    with pytest.raises(NonegError, match=r"b/070\.png.*empty file"):
        list(batches)


def test_nothing_readable(tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        (tmp_path / name).touch()
    source = find_source(tmp_path)
    with pytest.raises(NonegError, match=r"None of the 2 images.*1\.png: empty file"):
        load_images(source, channels=3, size=8)
    skipped: list[Skipped] = []
    batches = stream_images(source, channels=3, size=8, batch_size=2, on_skip=skipped.append)
    with pytest.raises(NonegError, match=r"None of the 2 images.*1\.png: empty file"):
        list(batches)
    assert len(skipped) == 2
    with pytest.raises(NonegError, match=r"None of the 2 images.*1\.png: empty file"):
        source.natural_size()


@pytest.mark.parametrize("batch_size", [1, 7, 64, 500])
@pytest.mark.parametrize("channels", [1, 3])
def test_streaming_equals_loading(folder: Path, batch_size: int, channels: int) -> None:
    source = find_source(folder)
    images = load_images(source, channels=channels, size=6)
    skipped: list[Skipped] = []
    batches = list(
        stream_images(
            source, channels=channels, size=6, batch_size=batch_size, on_skip=skipped.append
        )
    )
    assert np.array_equal(np.concatenate([pixels for pixels, _ in batches]), images.pixels)
    indices = [index for _, batch in batches for index in batch]
    assert tuple(source.name(index) for index in indices) == images.names
    assert tuple(skipped) == images.skipped
    assert {len(batch) for _, batch in batches[:-1]} <= {batch_size}
    assert all(len(pixels) == len(batch) for pixels, batch in batches)


class Counted(ImageSource):
    """Counts how many images were read; reads some slowly, so that threads finish out of order."""

    description = "counted"

    def __init__(self, count: int, seconds: float = 0) -> None:
        self.count = count
        self.seconds = seconds
        self.read_so_far = 0
        self.lock = threading.Lock()

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return str(index)

    def read(self, index: int, channels: int, size: int) -> np.ndarray:
        time.sleep(self.seconds if index % 3 else 0)
        with self.lock:
            self.read_so_far += 1
        if index % 10 == 9:
            raise Unreadable("ends in 9")
        return np.full((channels, size, size), index % 251, np.uint8)

    def natural_channels(self) -> int:
        return 1

    def natural_size(self) -> int:
        return 1


def test_the_order_does_not_depend_on_the_threads() -> None:
    images = load_images(Counted(1000, 0.0003), channels=1, size=2)
    expected = [index for index in range(1000) if index % 10 != 9]
    assert images.names == tuple(map(str, expected))
    assert images.pixels[:, 0, 0, 0].tolist() == [index % 251 for index in expected]


def reading_threads() -> set[threading.Thread]:
    """Those of earlier tests too, whose images are still in use."""
    return {thread for thread in threading.enumerate() if "noneg-images" in thread.name}


def test_streaming_reads_a_bounded_amount_ahead_and_stops_when_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = reading_threads()
    monkeypatch.setattr("noneg.images.reading.available_cores", lambda: 2)
    source = Counted(100_000)
    batches = stream_images(source, channels=1, size=2, batch_size=10, on_skip=lambda _: None)
    next(batches)
    time.sleep(0.3)
    assert source.read_so_far <= 5 * 64
    batches.close()
    assert reading_threads() <= before


def test_after_an_interruption_no_thread_reads_a_further_image() -> None:
    class Interrupted(Counted):
        def read(self, index: int, channels: int, size: int) -> np.ndarray:
            if index == 5:
                raise KeyboardInterrupt
            return super().read(index, channels, size)

    before = reading_threads()
    source = Interrupted(100_000, 0.01)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        load_images(source, channels=1, size=2)
    # One block takes 0.4 s, so the other threads did not finish theirs.
    assert time.monotonic() - started < 0.3
    assert reading_threads() <= before


def test_a_batch_does_not_change_when_the_next_one_is_read() -> None:
    batches = stream_images(
        find_source(np.arange(4, dtype=np.uint8)[:, None, None] * np.ones((5, 5), np.uint8)),
        channels=1,
        size=5,
        batch_size=2,
        on_skip=print,
    )
    first, _ = next(batches)
    next(batches)
    assert first[:, 0, 0, 0].tolist() == [0, 1]


@pytest.mark.parametrize(("channels", "size", "batch_size"), [(0, 8, 1), (3, 0, 1), (3, 8, 0)])
def test_numbers_that_must_be_positive(channels: int, size: int, batch_size: int) -> None:
    with pytest.raises(NonegError, match="asked for"):
        stream_images(
            Counted(3), channels=channels, size=size, batch_size=batch_size, on_skip=print
        )


def test_no_file_stays_open(folder: Path) -> None:
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("only Linux lists open files")
    source = find_source(folder)
    source.natural_size()
    before = len(list(descriptors.iterdir()))
    gc.disable()  # a file that only the garbage collector closes is a leak
    try:
        load_images(source, channels=3, size=8)
        assert len(list(descriptors.iterdir())) == before
    finally:
        gc.enable()


def test_write_skipped(tmp_path: Path) -> None:
    skipped = [Skipped("a,b.png", 'has "quotes"'), Skipped("bad\udcff.png", "empty file")]
    write_skipped(tmp_path / "skipped.csv", skipped)
    assert (tmp_path / "skipped.csv").read_text(encoding="utf-8").splitlines() == [
        "name,reason",
        '"a,b.png","has ""quotes"""',
        "bad\\udcff.png,empty file",
    ]


def test_progress_is_shown_only_if_asked_for_and_if_it_takes_long(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    load_images(find_source(folder), channels=3, size=8, progress=True)
    assert capfd.readouterr().err == ""
    load_images(Counted(300, 0.015), channels=1, size=2)
    assert capfd.readouterr().err == ""
    load_images(Counted(300, 0.015), channels=1, size=2, progress=True)
    assert "reading counted" in capfd.readouterr().err


def test_available_memory(tmp_path: Path) -> None:
    assert available_memory() > 2**20
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:  7 kB\n")
    assert _machine(tmp_path / "meminfo") == 7 * 1024
    assert _container(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("300\n")
    assert _container(tmp_path) == 700
    (tmp_path / "memory.max").write_text("max\n")
    assert _container(tmp_path) is None
