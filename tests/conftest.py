"""Shared by several tests: one thread, for parallel runs of tests, and a tiny backbone."""

import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from torch import nn

torch.set_num_threads(1)

pytest_plugins = ["written_runs", "real_runs"]


class TinyBackbone(nn.Module):
    """Two convolutions, GroupNorm and pooling: no batch statistics, and fast to train."""

    def __init__(self, channels: int = 3, width: int = 16) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, width, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(4, width)
        self.mix = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.num_features = width

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.norm(self.convolution(images)))
        return torch.relu(self.mix(hidden)).mean(dim=(2, 3))


@pytest.fixture
def tiny_backbone() -> TinyBackbone:
    torch.manual_seed(0)
    return TinyBackbone()


def start_python(arguments: list[str]) -> subprocess.Popen[str]:
    """Start a Python process with one thread; stderr goes to stdout."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_checkpoint(process: subprocess.Popen[str], run: Path) -> Path:
    """Wait for the run's first checkpoint, and return its path."""
    checkpoint = run / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 300
    while not checkpoint.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return checkpoint
