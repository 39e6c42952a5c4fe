"""Images that change, vanish or do not come during a run."""

import errno
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from real_runs import assert_same, finished, resume, run_here, sentence_of
from torch.utils.data import Dataset

import noneg
from conftest import start_python
from noneg.errors import MachineError, NonegError
from noneg.images import PixelsOnDemand, Unreadable, find_source, load_images, stream_images
from noneg.images import threads as reading_threads
from noneg.images.array import ArraySource
from noneg.records.directory import RunDirectory


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "images"
    place.mkdir()
    write_images(place, seed=0)
    return place


def write_images(place: Path, seed: int, count: int = 40) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    for number, each in enumerate(pixels):
        Image.fromarray(each).save(place / f"{number:02}.png")


class Killed(BaseException):
    """Ends a run as `kill -9` does: nothing is written any more."""


def stopped(folder: Path, out: Path, **more: object) -> None:
    """A run of 20 steps that was killed after its checkpoint at step 10."""

    def kill(step: int) -> None:
        if step == 12:
            raise Killed

    with pytest.raises(Killed):
        run_here(folder, out, kill, steps=20, **more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights after 20 steps without a fault."""
    place = tmp_path_factory.mktemp("whole")
    (place / "images").mkdir()
    write_images(place / "images", seed=0)
    run_here(place / "images", place / "run", lambda _step: None, steps=20)
    return finished(place / "run")


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_decoded_images_are_not_looked_at_again(
    folder: Path, tmp_path: Path, whole: dict[str, torch.Tensor], cache: str
) -> None:
    out, aside = tmp_path / cache, tmp_path / "aside"
    run_here(folder, out, lambda step: step == 1 and folder.rename(aside), cache=cache, steps=20)
    assert_same(finished(out), whole)


@pytest.mark.parametrize("change", ["vanished", "emptied"])
def test_images_on_demand_that_are_gone(
    folder: Path, tmp_path: Path, whole: dict[str, torch.Tensor], change: str
) -> None:
    out, aside = tmp_path / "run", tmp_path / "aside"

    def take_away(step: int) -> None:
        if step == 12:
            folder.rename(aside)
            if change == "emptied":
                folder.mkdir()

    with pytest.raises(NonegError) as caught:
        run_here(folder, out, take_away, cache="none", steps=20)
    sentence = str(caught.value)
    assert str(folder) in sentence
    assert f"the last checkpoint in {out} is whole" in sentence
    assert f"noneg train --resume {out}" in sentence
    if change == "emptied":
        folder.rmdir()
    aside.rename(folder)
    assert_same(resume(out), whole)


def test_single_images_that_change_while_they_are_decoded_on_demand(
    folder: Path, tmp_path: Path
) -> None:
    """A removed or damaged one is skipped and listed, a replaced one seen, an added one not."""
    out = tmp_path / "run"
    pixels = PixelsOnDemand(find_source(folder), 3, 16)
    before = pixels[:]

    def change(step: int) -> None:
        if step == 2:
            (folder / "07.png").unlink()
            (folder / "20.png").write_text("half of an ima")
            shutil.copy(folder / "01.png", tmp_path / "other.png")
            os.replace(tmp_path / "other.png", folder / "30.png")
            shutil.copy(folder / "02.png", folder / "03a.png")

    run_here(folder, out, change, cache="none", steps=20)
    listed = RunDirectory(out).skipped_file.read_text().splitlines()
    assert [line.partition(",")[0] for line in listed] == ["name", "07.png", "20.png"]
    assert "the file is gone" in listed[1]
    assert finished(out)

    after = pixels[:]
    expected = before.copy()
    expected[[7, 20, 30]] = before[[8, 21, 1]]
    assert np.array_equal(after, expected)


def test_a_resumed_run_needs_its_images(
    folder: Path, tmp_path: Path, whole: dict[str, torch.Tensor]
) -> None:
    out = tmp_path / "run"
    stopped(folder, out)
    aside = folder.rename(tmp_path / "aside")
    with pytest.raises(NonegError, match="was not found"):
        noneg.train(resume_from=out)
    shutil.copytree(aside, folder)
    (folder / "07.png").unlink()
    with pytest.raises(NonegError, match=r"was trained on 40 images, and the folder .* has 39 now"):
        noneg.train(resume_from=out)
    assert not RunDirectory(out).lock_file.exists()
    shutil.copy(aside / "07.png", folder)
    assert_same(resume(out), whole)


def test_replaced_images_are_mentioned(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    stopped(folder, out)
    shutil.copytree(out, tmp_path / "copy")
    # Copied again: other times, the same images.
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    noneg.train(resume_from=out)
    assert "warning" not in capsys.readouterr().out
    write_images(folder, seed=1)
    noneg.train(resume_from=tmp_path / "copy")
    assert "has other images than when" in capsys.readouterr().out


BLOCKED = """
import sys, threading
import noneg.images.threads as threads
from noneg.cli import main
from noneg.images.folder import FolderSource

threads.PATIENCE = 1
read = FolderSource.read
def blocked(self, index, channels, size):
    if self.name(index) == "21.png":
        threading.Event().wait()
    return read(self, index, channels, size)
FolderSource.read = blocked
sys.exit(main(sys.argv[1:]))
"""


def test_a_disk_that_blocks(folder: Path, tmp_path: Path) -> None:
    """The thread never comes back; the program ends all the same, and names the image."""
    out = tmp_path / "run"
    process = start_python(
        ["-c", BLOCKED, "train", str(folder), f"--out={out}", "--batch-size=8", "--epochs=1"]
    )
    sentence = sentence_of(process)
    assert "the image 21.png of the folder" in sentence
    assert "could not be read within 1 seconds" in sentence
    assert f"no step of {out} is saved yet" in sentence
    assert not out.exists()


class Blocking(Dataset):
    """Item 5 never comes."""

    def __init__(self, release: Callable[[], object]) -> None:
        self.release = release

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> np.ndarray:
        if index == 5:
            self.release()
        return np.full((8, 8, 3), index, dtype=np.uint8)


def test_patience_counts_from_the_last_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow source is not a blocked one, however long all of it takes."""

    class Slow(Blocking):
        def __getitem__(self, index: int) -> np.ndarray:
            time.sleep(0.1)
            return super().__getitem__(index)

    monkeypatch.setattr(reading_threads, "PATIENCE", 0.5)
    slow = find_source(Slow(lambda: None))
    assert len(load_images(slow, channels=3, size=8).pixels) == 20


@pytest.mark.parametrize("way", ["load", "stream", "on demand", "size"])
def test_each_way_of_reading_has_a_limit(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_threads, "PATIENCE", 0.3)
    monkeypatch.setattr(reading_threads, "_FAREWELL", 0.01)
    release = threading.Event()
    source = find_source(Blocking(release.wait))
    read: dict[str, Callable[[], object]] = {
        "load": lambda: load_images(source, channels=3, size=8),
        "stream": lambda: list(
            stream_images(source, channels=3, size=8, batch_size=4, on_skip=print)
        ),
        "on demand": lambda: PixelsOnDemand(source, 3, 8)[np.arange(10)],
        "size": source.natural_size,
    }
    with pytest.raises(MachineError, match=r"the image 5 of the data set .* within 0\.3 seconds"):
        read[way]()
    release.set()


def test_listing_a_folder_has_a_limit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts from the last entry: a slow disk is not a blocked one."""
    (folder / "more").mkdir()
    monkeypatch.setattr(reading_threads, "PATIENCE", 1)
    scandir, release = os.scandir, threading.Event()

    @contextmanager
    def slow(path: Path) -> Iterator[Iterator[os.DirEntry[str]]]:
        with scandir(path) as entries:
            yield (time.sleep(0.03) or each for each in entries)

    def blocked(path: Path) -> Any:
        if Path(path).name == "more":
            release.wait()
        return scandir(path)

    monkeypatch.setattr(os, "scandir", slow)
    assert len(find_source(folder)) == 40
    monkeypatch.setattr(os, "scandir", blocked)
    with pytest.raises(MachineError, match=r"images/more could not be listed .* within 1 sec"):
        find_source(folder)
    release.set()


@pytest.mark.parametrize(
    ("place", "name", "sentence"),
    [
        (Path, "is_dir", r"images\.npy could not be listed or opened within 0\.3 seconds"),
        (np, "load", r"images\.npy could not be listed or opened within 0\.3 seconds"),
        (ArraySource, "read_slice", r"the image 0 of the file .*images\.npy could not be read"),
    ],
)
def test_a_memory_mapped_file_has_a_limit(
    place: Any, name: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "images.npy"
    np.save(file, np.zeros((9, 8, 8, 3), np.uint8))
    release = threading.Event()
    monkeypatch.setattr(reading_threads, "PATIENCE", 0.3)
    monkeypatch.setattr(reading_threads, "_FAREWELL", 0.01)
    monkeypatch.setattr(place, name, lambda *_, **__: release.wait())
    with pytest.raises(MachineError, match=sentence):
        load_images(find_source(file), channels=3, size=8)
    release.set()


def test_a_lost_network_disk_is_not_a_folder_of_broken_images(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = find_source(folder)
    open_ = os.open
    fault = [0]

    def lost(path: str, *arguments: int) -> int:
        if str(path).endswith("07.png"):
            raise OSError(fault[0], os.strerror(fault[0]), str(path))
        return open_(path, *arguments)

    monkeypatch.setattr(os, "open", lost)
    for fault[0] in (errno.ESTALE, errno.EMFILE, errno.ETIMEDOUT):
        with pytest.raises(MachineError, match=r"07\.png cannot be read"):
            load_images(source, channels=3, size=16)
    # The control: these are about the one file.
    for fault[0] in (errno.EACCES, errno.EIO, errno.ELOOP):
        skipped = load_images(source, channels=3, size=16).skipped
        assert [each.name for each in skipped] == ["07.png"]


def test_a_link_to_a_pipe_does_not_block(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (folder / "00.png").unlink()
    (folder / "00.png").symlink_to(tmp_path / "pipe")
    (folder / "01.png").unlink()
    (folder / "01.png").symlink_to("/dev/zero")
    with pytest.raises(Unreadable, match="a pipe or a device"):
        find_source(folder).read(0, 3, 16)
    with pytest.raises(Unreadable, match="a pipe or a device"):
        find_source(folder).read(1, 3, 16)


def test_a_number_that_is_none_skips_one_image() -> None:
    """NaN in the pixels of one image of a data set."""

    class Items(Dataset):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> torch.Tensor:
            image = torch.full((3, 8, 8), 0.5)
            if index == 2:
                image[1, 2, 3] = float("nan")
            return image

    images = load_images(find_source(Items()), channels=3, size=8)
    assert len(images.pixels) == 3
    assert [(each.name, each.reason) for each in images.skipped] == [
        ("2", "some of its values are not numbers (NaN)")
    ]


MEMORY = """
import resource, sys
from pathlib import Path
from noneg.training import run
from noneg.cli import main

train_method = run.train_method
def limited(*arguments, **more):
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    # Room for the kernels that oneDNN compiles, which crash without, but not for activations.
    limit = pages * resource.getpagesize() + 2**27
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return train_method(*arguments, **more)
run.train_method = limited
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's limit is Linux's")
def test_memory_that_the_kernel_refuses(tmp_path: Path) -> None:
    images, out = tmp_path / "images.npy", tmp_path / "run"
    np.save(images, np.zeros((256, 64, 64, 3), np.uint8))
    settings = ["--batch-size=256", "--size=64", "--epochs=1", "--precision=32-true"]
    begun = ["-c", MEMORY, "train", str(images), f"--out={out}", *settings]
    sentence = sentence_of(start_python(begun))
    assert "the memory is full, with a --batch-size of 256; no step of" in sentence
    assert "--chunk-size 64 or a smaller --batch-size" in sentence
