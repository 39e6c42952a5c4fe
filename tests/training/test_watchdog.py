"""The watchdog reports a collapse, acts as `--on-collapse` says, and never changes sound runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import noneg
from noneg.errors import NonegError
from noneg.images.shapes import draw_shapes
from noneg.training import loop

# Without the stop-gradient, all projections become one vector within a few steps.
COLLAPSING = {"stop_gradient": False, "projector": (32, 16), "predictor_hidden": 16}
SOUND = {"projector": (32, 16), "predictor_hidden": 16}


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    pixels = draw_shapes(128, seed=0, size=16).pixels
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


def train(images: np.ndarray, out: Path, options: dict[str, Any], **settings: Any) -> noneg.Run:
    return noneg.train(
        images,
        out=str(out),
        method="byol",
        options=options,
        **{
            "size": 16,
            "batch_size": 32,
            "epochs": 20,
            "log_every": 4,
            "checkpoint_every": 4,
            "evaluate": False,
            "report": False,
            "views": "gentle",
            "backbone": "small_resnet",
            "optimizer": "adamw",
            "learning_rate": 0.02,
            **settings,
        },
    )


def verdict_of(run: Path) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads((run / "verdict.json").read_text())
    return fields


def test_a_collapse_is_reported_when_it_happens_with_its_cause(
    images: np.ndarray, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = train(images, tmp_path / "run", COLLAPSING)
    printed = capfd.readouterr().out
    assert run.verdict.state == "projector only"
    written = verdict_of(run.directory)
    assert written["state"] == "projector only"
    alarm = next(entry for entry in written["history"] if entry["state"] == "projector only")
    assert alarm["step"] < 80
    assert f"step {alarm['step']}: projector only" in printed
    assert "--options.stop-gradient true" in written["causes"][0]
    assert written["causes"][0] in printed
    # It only warned.
    assert (
        torch.load(run.directory / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
        == 80
    )


def test_a_sound_run_is_not_changed(images: np.ndarray, tmp_path: Path) -> None:
    plain = train(images, tmp_path / "plain", SOUND, epochs=10)
    watched = train(images, tmp_path / "watched", SOUND, epochs=10, on_collapse="rollback")
    states = {entry["state"] for entry in verdict_of(watched.directory)["history"]}
    assert states <= {"healthy", "too early to say", "not learning"}
    for one, other in zip(
        plain.encoder.module.state_dict().values(),
        watched.encoder.module.state_dict().values(),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_stop_ends_the_run_and_keeps_its_results(images: np.ndarray, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(NonegError, match="stopped early because of --on-collapse stop: projector"):
        train(images, out, COLLAPSING, on_collapse="stop")
    alarm = verdict_of(out)["history"][-1]
    assert alarm["state"] == "projector only"
    checkpoint = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == alarm["step"] < 80
    assert noneg.load(out).embed(images[:3]).shape == (3, 256)


def test_rollback_restores_healthy_weights_at_half_the_rate_and_stops_after_three(
    images: np.ndarray, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    with pytest.raises(NonegError, match="stopped early because of --on-collapse rollback"):
        train(images, out, COLLAPSING, on_collapse="rollback", epochs=40, learning_rate=0.2)
    printed = capfd.readouterr().out
    entries = verdict_of(out)["history"]
    back = [entry for entry in entries if entry["state"] == "rolled back"]
    assert len(back) == 3
    assert "3 of 3 rollbacks" in printed
    assert "at 0.125 of the learning rate" in printed
    checkpoint = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["rate_factor"] == 0.125
    rows = (out / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("mean_cosine_z")
    cosine = {int(row.split(",")[0]): float(row.split(",")[column]) for row in rows[1:]}
    # Rows after a rollback measure weights that had not collapsed.
    for entry in back:
        before, after = cosine[entry["step"]], cosine[entry["step"] + 4]
        assert before > 0.9
        assert after < before


class StoppedError(Exception):
    """Stands for a kill between two steps."""


def test_a_resumed_run_keeps_the_history_of_verdicts(
    images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(images, tmp_path / "whole", COLLAPSING, epochs=14)
    out = tmp_path / "halved"
    original, steps = loop.compute_gradient, iter(range(100))

    def stopping(*arguments: Any, **more: Any) -> Any:
        if next(steps) == 42:
            raise StoppedError
        return original(*arguments, **more)

    monkeypatch.setattr(loop, "compute_gradient", stopping)
    with pytest.raises(StoppedError):
        train(images, out, COLLAPSING, epochs=14)
    monkeypatch.undo()
    resumed = noneg.train(images, resume_from=out)
    first, second = verdict_of(whole.directory), verdict_of(resumed.directory)
    assert first == second
    read = [(run / "metrics.csv").read_text().splitlines() for run in (whole.directory, out)]
    header = read[0][0].split(",")
    timed = [header.index("seconds"), header.index("images_per_second")]
    for one, other in zip(*read, strict=True):
        cells = [
            [cell for at, cell in enumerate(row.split(",")) if at not in timed]
            for row in (one, other)
        ]
        assert cells[0] == cells[1]
