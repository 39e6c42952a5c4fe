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
from real_runs import assert_same, begin, children, resume, sentence_of

import noneg
from conftest import wait_for_checkpoint
from noneg.errors import NonegError
from noneg.records.directory import RunDirectory
from noneg.training.faults import explain, explained


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


@pytest.mark.parametrize("processes", [1, 2])
def test_a_disk_that_fills_up(
    pictures: Path, disk: Path, undisturbed: dict[str, torch.Tensor], processes: int
) -> None:
    """With two processes, one of them says so."""
    out = disk / "run"
    several = {"devices": 2, "strategy": "ddp"} if processes == 2 else {}
    process = begin(pictures, out, **several)
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
    if processes == 1:
        assert_same(resume(out), undisturbed)


def test_a_directory_that_turns_read_only(
    pictures: Path, disk: Path, undisturbed: dict[str, torch.Tensor]
) -> None:
    out = disk / "run"
    process = begin(pictures, out)
    wait_for_checkpoint(process, out)
    remount = ["mount", "-o", "remount,ro", str(disk)]
    deadline = time.monotonic() + 60
    # While a file is being written the disk is busy.
    while subprocess.run(remount, capture_output=True, check=False).returncode != 0:
        assert time.monotonic() < deadline
    sentence = sentence_of(process)
    assert re.search("read-only.*: make it writable, then noneg train --resume", sentence)
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert_same(resume(out), undisturbed)


def test_one_of_two_processes_is_killed(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = begin(pictures, out, devices=2, strategy="ddp", steps=4000, checkpoint_every=20)
    wait_for_checkpoint(process, out)
    (child,) = children(process.pid)
    os.kill(child, signal.SIGKILL)
    killed = time.monotonic()
    sentence = sentence_of(process)
    assert time.monotonic() - killed < 60
    assert "another process of this run has ended" in sentence
    assert f"noneg train --resume {out}" in sentence
    state = torch.load(RunDirectory(out).last_checkpoint, weights_only=True)
    done = state["global_step"]
    assert 0 < done < 4000
    # One process can go on; where torchrun says how many there are, nothing has to be changed.
    config = out / "config.yaml"
    text = config.read_text().replace("steps: 4000", f"steps: {done + 5}")
    config.write_text(text.replace("devices: 2", "devices: 1").replace("ddp", "auto"))
    resume(out)
    assert int(RunDirectory(out).metrics.read()[-1]["step"]) == done + 5


def test_memory_that_cannot_be_had(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    with (
        pytest.raises(NonegError, match=r"the memory is full; no step of .* is saved"),
        explained(run),
    ):
        torch.empty(2**60, dtype=torch.uint8)
    run.last_checkpoint.parent.mkdir(parents=True)
    run.last_checkpoint.touch()
    with pytest.raises(NonegError, match=r"checkpoint .* is whole: .*--chunk-size"), explained(run):
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
