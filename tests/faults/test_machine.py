"""Faults of the machine end in one sentence and exit code 2, and nothing that was saved is lost."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import noneg
from conftest import start_python, wait_for_checkpoint
from noneg.errors import NonegError
from noneg.records.directory import RunDirectory
from noneg.training.faults import explain, explained

SETTINGS = {
    "backbone": "small_convnet",
    "size": 16,
    "batch_size": 8,
    "steps": 120,
    "options.projector": "[16,8]",
    "checkpoint_every": 5,
    "evaluate": False,
    "report": False,
    "precision": "32-true",
    "accelerator": "cpu",
    "devices": 1,
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "images.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8))
    return path


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 40 megabytes of its own: four checkpoints."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        done = False
    if not done:
        pytest.skip("this user may not mount a disk")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def begin(images: Path, out: Path, **more: object) -> subprocess.Popen[str]:
    flags = [f"--{name}={value}" for name, value in {**SETTINGS, **more}.items()]
    return start_python(["-m", "noneg", "train", str(images), f"--out={out}", *flags])


def sentence_of(process: subprocess.Popen[str]) -> str:
    """What the program says about its end; there must be no traceback."""
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 2, said
    assert "Traceback" not in said
    (sentence,) = [line for line in said.splitlines() if line.startswith("noneg: ")]
    return sentence


def finished(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "encoder" / "encoder.safetensors")


@pytest.fixture(scope="module")
def unbroken(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    out = tmp_path_factory.mktemp("unbroken") / "run"
    process = begin(images, out)
    process.communicate(timeout=120)
    return finished(out)


def resume(out: Path) -> dict[str, torch.Tensor]:
    process = start_python(["-m", "noneg", "train", "--resume", str(out)])
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return finished(out)


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_disk_that_fills_up(images: Path, disk: Path, unbroken: dict[str, torch.Tensor]) -> None:
    out = disk / "run"
    process = begin(images, out)
    wait_for_checkpoint(process, out)
    filler = disk / "filler"
    with filler.open("wb") as file, suppress(OSError):
        while True:
            file.write(bytes(2**16))
    sentence = sentence_of(process)
    assert "the disk is full" in sentence
    assert f"make room, then noneg train --resume {out}" in sentence
    left = {path.name for path in (out / "checkpoints").iterdir()}
    assert left == {"last.ckpt"}
    filler.unlink()
    assert_same(resume(out), unbroken)


def test_a_directory_that_turns_read_only(
    images: Path, disk: Path, unbroken: dict[str, torch.Tensor]
) -> None:
    out = disk / "run"
    process = begin(images, out)
    wait_for_checkpoint(process, out)
    remount = ["mount", "-o", "remount,ro", str(disk)]
    deadline = time.monotonic() + 60
    # While a file is being written the disk is busy.
    while subprocess.run(remount, capture_output=True, check=False).returncode != 0:
        assert time.monotonic() < deadline
    sentence = sentence_of(process)
    assert re.search("read-only.*: make it writable, then noneg train --resume", sentence)
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert_same(resume(out), unbroken)


def test_one_of_two_processes_is_killed(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = begin(images, out, devices=2, strategy="ddp", steps=4000, checkpoint_every=20)
    wait_for_checkpoint(process, out)
    (child,) = children(process.pid)
    os.kill(child, signal.SIGKILL)
    killed = time.monotonic()
    sentence = sentence_of(process)
    assert time.monotonic() - killed < 60
    assert "another process of this run has ended" in sentence
    assert f"noneg train --resume {out}" in sentence
    state = torch.load(RunDirectory(out).last_checkpoint, weights_only=True)
    assert 0 < state["global_step"] < 4000


def children(pid: int) -> list[int]:
    """Processes that this one has started, which run noneg."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for each in (task / "children").read_text().split():
            command = Path(f"/proc/{each}/cmdline").read_bytes()
            if b"noneg" in command and b"resource_tracker" not in command:
                found.append(int(each))
    return found


def test_memory_that_cannot_be_had(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    with (
        pytest.raises(NonegError, match=r"the memory is full; no step of .* is saved"),
        explained(run),
    ):
        torch.empty(2**60, dtype=torch.uint8)
    run.last_checkpoint.parent.mkdir(parents=True)
    run.last_checkpoint.touch()
    with pytest.raises(NonegError, match=r"checkpoint .* is whole; .*--chunk-size"), explained(run):
        np.empty(2**60, dtype=np.uint8)


def test_bugs_and_other_sentences_stay_what_they_are(tmp_path: Path) -> None:
    """The control: only faults of the machine are explained."""
    run = RunDirectory(tmp_path / "run")
    for error in (ValueError("shapes differ"), RuntimeError("expected scalar type Float")):
        assert explain(error, run) is None
        with pytest.raises(type(error)), explained(run):
            raise error
    with pytest.raises(NonegError, match=r"^lower the rate$"), explained(run):
        raise NonegError("lower the rate")
    with pytest.raises(KeyboardInterrupt), explained(run):
        raise KeyboardInterrupt


def test_a_disk_error_behind_a_sentence_is_explained_too(tmp_path: Path) -> None:
    """Files that are written whole raise a NonegError from the OSError."""
    run = RunDirectory(tmp_path / "run")
    below_a_file = tmp_path / "file" / "scores.json"
    (tmp_path / "file").touch()
    with pytest.raises(NonegError, match=r"no step of .* is saved yet"), explained(run):
        noneg.files.write_json(below_a_file, {})
