"""One run at a time in a directory; runs that are ended from outside, and started again."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from real_runs import (
    PATIENCE,
    SETTINGS,
    assert_same,
    begin,
    command,
    finished,
    resume,
    run_here,
)

import noneg
from conftest import start_python
from noneg.collection.embedded import embed_collection
from noneg.errors import MachineError, NonegError
from noneg.files import LockedError, locked
from noneg.records.directory import RunDirectory
from untrained_encoders import untrained_encoder


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_runs_are_started_in_one_directory(
    pictures: Path, undisturbed: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    both = [begin(pictures, out) for _ in range(2)]
    said = [process.communicate(timeout=PATIENCE)[0] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes == [0, 2], said
    (refused,) = [text for text, each in zip(said, both, strict=True) if each.returncode == 2]
    assert re.search("noneg: (process .* is training in|.* holds a run already)", refused)
    assert_same(finished(out), undisturbed)
    assert not RunDirectory(out).lock_file.exists()


def test_a_run_is_not_resumed_twice_at_once(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run_here(pictures, out, lambda _step: None, steps=5)
    with locked(RunDirectory(out).lock_file), pytest.raises(NonegError) as caught:
        noneg.train(resume_from=out)
    assert f"process {os.getpid()} on " in str(caught.value)
    assert f" is training in {out}: wait until it ends" in str(caught.value)
    noneg.train(resume_from=out)


def test_runs_without_a_name_get_directories_of_their_own(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other run takes the number between the look and the making."""
    monkeypatch.chdir(tmp_path)
    mkdir = Path.mkdir

    def late(self: Path, *arguments: Any, **more: Any) -> None:
        if self.name.endswith("-1"):
            mkdir(self, exist_ok=True)
        mkdir(self, *arguments, **more)

    monkeypatch.setattr(Path, "mkdir", late)
    run = noneg.train(pictures, **{**SETTINGS, "steps": 1})
    assert run.directory == Path("runs/images-vicreg-2")
    assert not any(Path("runs/images-vicreg-1").iterdir())


def test_a_directory_behind_links_that_the_user_made(pictures: Path, tmp_path: Path) -> None:
    """Of its own and of its parents; within it, no link leads out."""
    disk = tmp_path / "disk"
    (disk / "first").mkdir(parents=True)
    (tmp_path / "runs").symlink_to(disk)
    (tmp_path / "own").symlink_to(disk / "first")
    for out, place in (("runs/second", "second"), ("own", "first")):
        run_here(pictures, tmp_path / out, lambda _step: None, steps=5)
        noneg.train(resume_from=tmp_path / out)
        assert (disk / place / "encoder" / "encoder.safetensors").is_file()
    metrics = RunDirectory(disk / "first").metrics.path
    metrics.rename(disk / "metrics.csv")
    metrics.symlink_to(disk / "metrics.csv")
    with pytest.raises(NonegError, match=r"metrics\.csv is a link to a place outside"):
        noneg.train(resume_from=tmp_path / "own")


@pytest.mark.parametrize("out", ["runs", "runs/run"])
def test_a_link_to_a_disk_that_is_not_there(out: str, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").symlink_to(tmp_path / "disk")
    with pytest.raises(NonegError, match=r"runs is a link to .*disk, which does not exist: make"):
        run_here(pictures, tmp_path / out, lambda _step: None, steps=5)
    assert not (tmp_path / "disk").exists()


HOLDER = """
import sys, time
from noneg.files import locked
with locked(sys.argv[1], wait=True):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def test_a_lock_is_free_when_its_process_ends_in_any_way(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock), "100"], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(LockedError, match=f"process {holder.pid} on "), locked(lock):
        pass
    waiting = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock), "0"], stdout=subprocess.PIPE, text=True
    )
    time.sleep(0.5)
    assert waiting.poll() is None
    holder.kill()
    assert waiting.communicate(timeout=PATIENCE)[0] == "held\n"
    holder.communicate()
    assert not lock.exists()
    with locked(lock), pytest.raises(LockedError), locked(lock):
        pass
    with pytest.raises(MachineError, match="cannot be made"), locked(tmp_path / "no" / "lock"):
        pass


EMBEDDING = """
import sys
from noneg.collection.embedded import embed_collection
from noneg.encoder import load
encoder = load(sys.argv[1])
for _ in range(10):
    found = embed_collection(encoder, sys.argv[2])
    for file in __import__("pathlib").Path(sys.argv[2]).parent.glob(".noneg/*.safetensors"):
        file.unlink(missing_ok=True)
print(found.vectors.sum())
"""


def test_two_processes_write_one_cache(pictures: Path, tmp_path: Path) -> None:
    encoder = untrained_encoder(size=16)
    encoder.save(tmp_path / "encoder")
    images = tmp_path / "images.npy"
    images.write_bytes(pictures.read_bytes())
    program = ["-c", EMBEDDING, str(tmp_path / "encoder"), str(images)]
    both = [start_python(program) for _ in range(2)]
    said = [process.communicate(timeout=PATIENCE)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert said[0] == said[1]
    assert not list((tmp_path / ".noneg").glob("*.unfinished"))
    kept = embed_collection(encoder, images).vectors
    assert np.array_equal(kept, embed_collection(encoder, images).vectors)
    assert np.array_equal(kept, embed_collection(encoder, images, cache=False).vectors)


def test_sigterm_twice_and_then_resumed(
    pictures: Path, undisturbed: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """A scheduler and a launcher may each send one; the checkpoint is written all the same."""
    out = tmp_path / "run"
    process = begin(pictures, out, checkpoint_every=1000)
    wait_for(RunDirectory(out).metrics.path, process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, said
    assert f"Continue with: noneg train --resume {out}" in said
    assert RunDirectory(out).last_checkpoint.exists()
    assert_same(resume(out), undisturbed)


INTERRUPTED = """
import os, signal, sys
import noneg.training.run as run
from noneg.cli import main
where = sys.argv.pop(1)
before = getattr(run, where)
def interrupted(*arguments, **more):
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    return before(*arguments, **more)
setattr(run, where, interrupted)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("where", ["load_for_training", "measure_trained_and_untrained"])
def test_sigterm_before_and_after_training(
    pictures: Path, undisturbed: dict[str, torch.Tensor], tmp_path: Path, where: str
) -> None:
    out = tmp_path / "run"
    given = command(pictures, out, evaluate=True)
    process = start_python(["-c", INTERRUPTED, where, *given])
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    if where == "load_for_training":
        # Nothing is lost, and nothing is left.
        assert not out.exists()
        return
    assert f"Continue with: noneg train --resume {out}" in said
    assert_same(resume(out), undisturbed)


def test_slurm_stops_a_job_and_starts_it_again(pictures: Path, tmp_path: Path) -> None:
    """Two tasks, as srun starts them, each with SLURM's own variables.

    The script is the one in docs/scaling.md: it resumes if the run exists.
    """
    out = tmp_path / "run"
    first = command(pictures, out, devices=2, strategy="ddp", steps=60)

    def tasks() -> list[subprocess.Popen[str]]:
        shared = {
            "SLURM_JOB_ID": "4711",
            "SLURM_JOB_NAME": "pretraining",
            "SLURM_NTASKS": "2",
            "SLURM_NTASKS_PER_NODE": "2",
            "SLURM_NNODES": "1",
            "SLURM_NODEID": "0",
            "SLURM_NODELIST": "127.0.0.1",
            "SLURM_JOB_NODELIST": "127.0.0.1",
            "MASTER_ADDR": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
        }
        given = ["train", "--resume", str(out)] if (out / "config.yaml").exists() else first
        return [
            subprocess.Popen(
                [sys.executable, "-m", "noneg", *given],
                env={**os.environ, **shared, "SLURM_PROCID": str(n), "SLURM_LOCALID": str(n)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for n in range(2)
        ]

    def end(job: list[subprocess.Popen[str]], code: int) -> str:
        said = [task.communicate(timeout=PATIENCE)[0] for task in job]
        assert [task.returncode for task in job] == [code, code], said
        return "".join(said)

    job = tasks()
    wait_for(RunDirectory(out).metrics.path, job[0])
    for task in job:
        task.send_signal(signal.SIGTERM)
    assert f"Continue with: noneg train --resume {out}" in end(job, 130)
    assert not (out / "encoder").exists()
    done = torch.load(RunDirectory(out).last_checkpoint, weights_only=True)["global_step"]
    assert 0 < done < 60
    # Requeued, with the same command.
    end(tasks(), 0)
    steps = [int(row["step"]) for row in RunDirectory(out).metrics.read()]
    assert steps == sorted(set(steps))
    assert steps[-1] == 60


def test_a_wrong_clock_changes_nothing(
    pictures: Path,
    undisturbed: dict[str, torch.Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A clock of 1901 that jumps back at every look, and images that were changed in 2200."""
    images = tmp_path / "images.npy"
    images.write_bytes(pictures.read_bytes())
    os.utime(images, (7_258_118_400, 7_258_118_400))
    now = [-2_177_452_800.0]

    def earlier() -> float:
        now[0] -= 86_400
        return now[0]

    monkeypatch.setattr(time, "time", earlier)
    monkeypatch.setattr(time, "time_ns", lambda: int(earlier() * 1e9))
    out = tmp_path / "run"
    run_here(images, out, lambda _step: None)
    assert_same(finished(out), undisturbed)
    seconds = [row["seconds"] for row in RunDirectory(out).metrics.read()]
    assert sorted(map(float, seconds)) == list(map(float, seconds))
    encoder = noneg.load(out)
    first = embed_collection(encoder, images)
    assert list((tmp_path / ".noneg").iterdir())
    assert np.array_equal(first.vectors, embed_collection(encoder, images).vectors)
