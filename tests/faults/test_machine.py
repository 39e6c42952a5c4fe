"""Faults of the machine end in one sentence and exit code 2, and nothing that was saved is lost."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from real_runs import Disk, assert_same, begin, children, command, resume, sentence_of

import noneg
from conftest import start_python, wait_for_checkpoint
from noneg.errors import NonegError
from noneg.records.directory import RunDirectory
from noneg.training import launch
from noneg.training.faults import explain, explained

MEGABYTES = 40
"""Of the disk: four checkpoints."""


@pytest.mark.parametrize("processes", [1, 2])
def test_a_disk_that_fills_up(
    pictures: Path, disk: Disk, undisturbed: dict[str, torch.Tensor], processes: int
) -> None:
    """With two processes, one of them says so."""
    out = disk.place / "run"
    several = {"devices": 2, "strategy": "ddp"} if processes == 2 else {}
    process = begin(pictures, out, **several)
    wait_for_checkpoint(process, out)
    filler = disk.place / "filler"
    disk.fill(filler)
    sentence = sentence_of(process)
    assert "the disk is full" in sentence
    assert f"make room, then noneg train --resume {out}" in sentence
    left = {path.name for path in (out / "checkpoints").iterdir()}
    assert left == {"last.ckpt"}
    filler.unlink()
    if processes == 1:
        assert_same(resume(out), undisturbed)


def test_a_directory_that_turns_read_only(
    pictures: Path, disk: Disk, undisturbed: dict[str, torch.Tensor]
) -> None:
    out = disk.place / "run"
    process = begin(pictures, out)
    wait_for_checkpoint(process, out)
    with disk.read_only():
        sentence = sentence_of(process)
    assert re.search("read-only.*: make it writable, then noneg train --resume", sentence)
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


def test_one_is_killed_while_the_other_sends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as in measuring and scoring; Lightning would kill it."""
    ended: list[int] = []
    monkeypatch.setattr(launch, "OWN_WORDS", 0)
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(_ChildProcessObserver, "_terminate_all", None)
    launch.explain_lost_processes(RunDirectory(tmp_path))
    killed = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    killed.kill()
    killed.wait()
    assert _ChildProcessObserver(os.getpid(), [killed])._run()
    assert ended == [2]
    assert f"noneg: another process of this run has ended; no step of {tmp_path}" in (
        capsys.readouterr().err
    )


SPOILED = """
import os, sys
from noneg.cli import main
from noneg.training import loop

is_second = os.environ.get("LOCAL_RANK") == "1"
steps, draw, compute = 0, loop.draw_views, loop.compute_gradient

def drawn(*arguments, **more):
    global steps
    steps += 1
    views = draw(*arguments, **more)
    if WHAT == "image" and is_second and steps == 10:
        views[0][0, 0, 0, 0] = float("nan")
    return views

def computed(method, *arguments, **more):
    if WHAT == "gradient" and is_second and steps == 10:
        weight = next(method.backbone.parameters())
        weight.register_hook(lambda gradient: gradient * float("nan"))
    return compute(method, *arguments, **more)

loop.draw_views, loop.compute_gradient = drawn, computed
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("image", "the loss is nan at step 9 "),
        # Checkpoints are due after 5 and 10 steps.
        ("gradient", "are not finite at step 10: "),
    ],
)
def test_a_number_of_one_process_that_is_none(
    what: str, sentence: str, pictures: Path, tmp_path: Path
) -> None:
    """Both processes end, with one sentence, and the last good checkpoint stays."""
    program, out = tmp_path / "spoiled.py", tmp_path / "run"
    program.write_text(f"WHAT = {what!r}\n{SPOILED}")
    arguments = command(pictures, out, devices=2, strategy="ddp", steps=20)
    said = sentence_of(start_python([str(program), *arguments]))
    assert sentence in said
    assert "the last good checkpoint is kept" in said
    state = torch.load(RunDirectory(out).last_checkpoint, weights_only=True)
    assert state["global_step"] == 5
    assert all(bool(torch.isfinite(each).all()) for each in state["state_dict"].values())
    assert {path.name for path in (out / "checkpoints").iterdir()} == {"last.ckpt"}


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
