"""Short runs, in processes of their own or in this one, and what they say when they end."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Disk:
    """A small disk of its own, which can be full or read-only."""

    place: Path

    @contextmanager
    def filled(self, *, room: int = 0) -> Iterator[None]:
        """Without any more space than `room`, in bytes."""
        filler = self.place / "filler"
        self.fill(filler, room)
        try:
            yield
        finally:
            filler.unlink()

    def fill(self, filler: Path, room: int = 0) -> None:
        with filler.open("wb", buffering=0) as file:
            with suppress(OSError):
                while True:
                    file.write(bytes(2**16))
            file.truncate(file.tell() - room)

    @contextmanager
    def read_only(self) -> Iterator[None]:
        self.remount("ro")
        try:
            yield
        finally:
            self.remount("rw")

    def remount(self, how: str) -> None:
        deadline = time.monotonic() + 60
        command = ["mount", "-o", f"remount,{how}", str(self.place)]
        # While a file is being written the disk is busy.
        while subprocess.run(command, capture_output=True, check=False).returncode != 0:
            assert time.monotonic() < deadline

    def contents(self) -> dict[str, bytes]:
        """All files but the filler, with what is in them."""
        return {
            path.relative_to(self.place).as_posix(): path.read_bytes()
            for path in self.place.rglob("*")
            if path.is_file() and path.name != "filler"
        }


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    """Of 8 megabytes, or as many as the test's module says: `MEGABYTES`."""
    place = tmp_path / "disk"
    place.mkdir()
    size = getattr(request.module, "MEGABYTES", 8)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        done = False
    if not done:
        pytest.skip("this user may not mount a disk")
    try:
        yield Disk(place)
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
