"""Short runs, in processes of their own or in this one, and what they say when they end."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import noneg
from conftest import start_python
from noneg.methods.base import Embeddings, Method
from noneg.training.config import make_config
from noneg.training.loop import Observer
from noneg.training.run import start

SETTINGS: dict[str, Any] = {
    "backbone": "small_convnet",
    "size": 16,
    "batch_size": 8,
    "steps": 120,
    "checkpoint_every": 5,
    "evaluate": False,
    "report": False,
    "precision": "32-true",
    "accelerator": "cpu",
    "devices": 1,
}
OPTIONS = {"projector": [16, 8]}

PATIENCE = 600
"""Seconds; other tests may run beside these."""


def begin(images: Path, out: Path, **more: object) -> subprocess.Popen[str]:
    """Start a run in a process of its own."""
    return start_python(["-m", "noneg", *command(images, out, **more)])


def command(images: Path, out: Path, **more: object) -> list[str]:
    flags = [f"--{name}={value}" for name, value in {**SETTINGS, **more}.items()]
    return ["train", str(images), f"--out={out}", "--options.projector=[16,8]", *flags]


def run_here(images: Path, out: Path, at_step: Callable[[int], object], **more: object) -> None:
    """The same run in this process; `at_step` is called after each step."""

    class Watching(Observer):
        def begin(self, step: int, total_steps: int) -> None:
            """Nothing to prepare."""

        def observe(self, step: int, epoch: int, method: Method, embeddings: Embeddings) -> None:
            at_step(step)

    settings = {**SETTINGS, "out": str(out), "options": OPTIONS, **more}
    start(make_config(str(images), **settings), observers=[Watching()])


def sentence_of(process: subprocess.Popen[str]) -> str:
    """What the program says about its end; there must be no traceback."""
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2, said
    assert "Traceback" not in said
    (sentence,) = [line for line in said.splitlines() if line.startswith("noneg: ")]
    return sentence


def finished(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "encoder" / "encoder.safetensors")


def resume(out: Path) -> dict[str, torch.Tensor]:
    noneg.train(resume_from=out)
    return finished(out)


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def children(pid: int) -> list[int]:
    """Processes that this one has started, which run noneg."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for each in (task / "children").read_text().split():
            command = Path(f"/proc/{each}/cmdline").read_bytes()
            if b"noneg" in command and b"resource_tracker" not in command:
                found.append(int(each))
    return found


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "images.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8))
    return path


@pytest.fixture(scope="session")
def undisturbed(
    pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, torch.Tensor]:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    run_here(pictures, out, lambda _step: None)
    return finished(out)
