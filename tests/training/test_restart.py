"""A killed or interrupted run that is resumed ends with the weights of an uninterrupted run."""

import csv
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import noneg
from conftest import start_python, wait_for_checkpoint
from noneg.errors import NonegError

# 11 steps per epoch, 55 in total, and a checkpoint every 7 steps: each is within an epoch.
SETTINGS = {
    "epochs": 5,
    "batch_size": 8,
    "backbone": "small_resnet",
    "size": 16,
    "checkpoint_every": 7,
    "evaluate": False,
    "report": False,
    "log_every": 4,
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "images.npy"
    pixels = np.random.default_rng(0).integers(0, 256, (91, 16, 16, 3), dtype=np.uint8)
    np.save(path, pixels)
    return path


@pytest.fixture(scope="module")
def unbroken(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    noneg.train(images, out=str(out), method="byol", options={"projector": [32, 16]}, **SETTINGS)
    return out


def begin(images: Path, out: Path) -> subprocess.Popen[str]:
    flags = [f"--{name}={value}" for name, value in SETTINGS.items()]
    program = ["-m", "noneg", "train", str(images), "--out", str(out), "--method", "byol"]
    return start_python([*program, "--options.projector=[32,16]", *flags])


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = (load_file(run / "encoder" / "encoder.safetensors") for run in (one, other))
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def steps_of(run: Path) -> list[int]:
    with (run / "metrics.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def killed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed within an epoch."""
    out = tmp_path_factory.mktemp("runs") / "killed"
    process = begin(images, out)
    wait_for_checkpoint(process, out)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    return out


def test_killed_and_resumed_is_bit_identical(killed: Path, unbroken: Path, tmp_path: Path) -> None:
    out = shutil.copytree(killed, tmp_path / "run")
    assert not (out / "encoder").exists()
    checkpoint = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
    assert 0 < checkpoint["global_step"] < 55
    assert checkpoint["global_step"] % 11 != 0

    resumed = noneg.train(resume_from=out)
    assert_same_weights(unbroken, resumed.directory)
    assert steps_of(out) == steps_of(unbroken)


def test_interrupted_and_resumed_is_bit_identical(
    images: Path, unbroken: Path, tmp_path: Path
) -> None:
    out = tmp_path / "interrupted"
    process = begin(images, out)
    wait_for_checkpoint(process, out)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate()
    assert process.returncode == 130, output
    assert f"noneg train --resume {out}" in output
    assert "Traceback" not in output

    resumed = noneg.train(resume_from=out)
    assert_same_weights(unbroken, resumed.directory)


def test_a_checkpoint_of_the_former_trainer_is_resumed(
    killed: Path, unbroken: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(killed, tmp_path / "run")
    path = out / "checkpoints" / "last.ckpt"
    state = torch.load(path, weights_only=True)
    # What version 0.1.0 wrote before its loop was its own, besides much that was not read again.
    state["callbacks"] = {
        "Reporting": {"metering": state.pop("metering")},
        "Watchdog": state.pop("watchdog"),
    }
    del state["precision"]
    torch.save(state, path)
    noneg.train(resume_from=out)
    assert_same_weights(unbroken, out)
    assert steps_of(out) == steps_of(unbroken)


def test_another_seed_is_another_run(images: Path, unbroken: Path, tmp_path: Path) -> None:
    """The control: the comparison above detects different runs."""
    options = {"projector": [32, 16]}
    other = noneg.train(
        images, out=str(tmp_path / "other"), method="byol", options=options, seed=1, **SETTINGS
    )
    with pytest.raises(AssertionError):
        assert_same_weights(unbroken, other.directory)


def test_a_broken_checkpoint_is_named(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    noneg.train(images, out=str(out), **{**SETTINGS, "epochs": 1})
    checkpoint = out / "checkpoints" / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(NonegError, match=r"last\.ckpt cannot be resumed from"):
        noneg.train(resume_from=out)


def test_a_directory_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(NonegError, match="is not a run"):
        noneg.train(resume_from=tmp_path / "nothing")
