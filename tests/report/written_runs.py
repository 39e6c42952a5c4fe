"""Runs to report on, written without training: every file as a run leaves it."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from noneg.encoder import Encoder, EncoderInfo
from noneg.images import find_source
from noneg.networks.backbones import build_backbone
from noneg.records.directory import RunDirectory
from noneg.training.config import make_config, to_dict
from noneg.training.plan import complete

MakeRun = Callable[..., Path]


def write_metrics(path: Path, steps: int = 12) -> None:
    """A falling loss of two terms, and meters of which some are measured only every fourth step."""
    names = ["step", "epoch", "views", "seconds", "loss", "pull", "push", "learning_rate"]
    names += ["images_per_second", "std_h", "std_z", "effective_rank_h", "effective_rank_z"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for step in range(1, steps + 1):
            ranks = [10 + step, 20 + step] if step % 4 == 0 else ["", ""]
            row = [step, step // 4, 32 * step, 0.5 * step, 3 / step, 1 / step, 2 / step, 1e-3, 200]
            writer.writerow([*row, 0.6, 0.7, *ranks])


def write_spectra(path: Path) -> None:
    """Spectra of h and z at two steps; z is narrower than h."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "epoch", "embedding", *(f"lambda_{n}" for n in range(1, 9))])
        for step in (1, 12):
            writer.writerow([step, 0, "h", *(2.0**-n for n in range(8))])
            writer.writerow([step, 0, "z", *(2.0**-n for n in range(4)), *[""] * 4])


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """A function that writes a run on `data`: a folder, a file or a name."""

    def make(name: str, data: str, *, size: int = 32, stored: int = 32, **settings: Any) -> Path:
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        source = find_source(data)
        plan = complete(make_config(data, size=size, **settings), source)
        RunDirectory(run).write_config(to_dict(plan.config))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            backbone = build_backbone(plan.backbone, channels=plan.channels, size=size)
        info = EncoderInfo(
            backbone=plan.backbone,
            channels=plan.channels,
            size=size,
            stored_size=stored,
            mean=(0.5,) * plan.channels,
            std=(0.25,) * plan.channels,
            features=int(backbone.num_features),
            method=plan.config.method,
            data={"description": source.description, "images": len(source)},
        )
        Encoder(backbone, info).save(run / "encoder")
        write_metrics(run / "metrics.csv")
        write_spectra(run / "spectra.csv")
        (run / "verdict.json").write_text(
            json.dumps(
                {
                    "state": "healthy",
                    "sentence": "Nothing points to collapse.",
                    "numbers": {"std_h": 0.6},
                    "causes": [],
                    "history": [],
                }
            )
        )
        return run

    return make


@pytest.fixture
def write_images(tmp_path: Path) -> Callable[[dict[str, int]], Path]:
    """A function that writes a folder of noise PNGs, from file names and their seeds."""

    def write(names: dict[str, int]) -> Path:
        folder = tmp_path / "photos"
        for name, seed in names.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            blocks = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(blocks).resize((36, 36), Image.Resampling.BICUBIC).save(path)
        return folder

    return write


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written into the repository."""
    monkeypatch.chdir(tmp_path)
