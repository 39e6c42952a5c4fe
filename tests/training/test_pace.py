"""`--minutes`: the number of steps that fit, and a timing that leaves no trace in the run."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import noneg
from noneg.records.directory import RunDirectory
from noneg.training import pace
from noneg.training.config import load_config
from noneg.training.pace import Pace, typical
from noneg.training.run import Run

# 5 steps per epoch.
SETTINGS: dict[str, Any] = {
    "batch_size": 8,
    "backbone": "small_resnet",
    "size": 16,
    "log_every": 4,
    "evaluate": False,
    "report": False,
}
OPTIONS: dict[str, dict[str, Any]] = {
    # Moving averages, batch statistics, a queue, a target for each image, a target per epoch.
    "byol": {"projector": (32, 16), "predictor_hidden": 16},
    "moco": {"projector": (16, 8), "queue": 64},
    "simsiam_em": {"projector": (16, 8)},
    "simsiam": {"projector": (16, 8), "predictor_hidden": 4, "hold": "epoch"},
}


def noise(count: int = 43) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


def checkpoint(run: Run) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(
        run.directory / "checkpoints" / "last.ckpt", weights_only=True
    )
    return state


def assert_equal(one: Any, other: Any) -> None:
    """The same tensors, to the last bit, in the same nested containers."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert_equal(value, other[name])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for value, likewise in zip(one, other, strict=True):
            assert_equal(value, likewise)
    else:
        assert one == other


def rows_of(run: Run) -> list[dict[str, str]]:
    with (run.directory / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_what_recurs_is_counted_as_often_as_it_occurs() -> None:
    # 30 steps: 3 s, 3 rows of 0.5 s, one checkpoint of 2 s, and 1 s once.
    one = Pace(step=0.1, once=1.0, recurring=((10, 0.5), (25, 2.0)))
    assert one.seconds(30) == pytest.approx(1 + 3 + 3 * 0.5 + 2)
    assert one.steps_within(7.5 + 1e-9) == 30
    # The 40th step has a row for which there is no time; then the 50th has a checkpoint as well.
    assert one.steps_within(8.5) == 39
    assert one.steps_within(9.0 + 1e-9) == 40
    assert one.steps_within(0.0) == 1
    for seconds in np.linspace(2, 300, 500):
        steps = one.steps_within(float(seconds))
        assert one.seconds(steps) <= seconds < one.seconds(steps + 1)


def test_an_interruption_does_not_count_but_what_happens_regularly_does() -> None:
    even = [9.0, 0.1] + [0.1] * 38
    assert typical(even) == pytest.approx(0.1)
    interrupted = [*even]
    interrupted[20] = 30.0
    assert typical(interrupted) == pytest.approx(0.1)
    # Every second step waits for its images.
    assert typical([5.0] * 10 + [0.1, 0.3] * 15) == pytest.approx(0.2)
    assert typical([5.0, 0.2, 0.2, 0.2]) == pytest.approx(0.2)


@pytest.mark.parametrize("method", OPTIONS)
def test_a_run_of_minutes_is_the_run_of_its_steps_to_the_last_bit(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pace, "_FEWEST_SECONDS", 0.1)
    settings = {**SETTINGS, "method": method, "options": OPTIONS[method]}
    timed = noneg.train(noise(), out=str(tmp_path / "timed"), minutes=0.02, **settings)
    steps = timed.config.steps
    assert steps is not None
    assert f"about {steps:,} step" in capsys.readouterr().out
    # The faster precision is another one in another moment.
    settings |= {"precision": timed.config.precision}
    given = noneg.train(noise(), out=str(tmp_path / "given"), steps=steps, **settings)
    one, other = checkpoint(timed), checkpoint(given)
    assert one["global_step"] == steps
    # Weights, targets and statistics, the optimizer, and the embeddings for the meters.
    for part in ("state_dict", "optimizer_states", "metering", "watchdog"):
        assert_equal(one[part], other[part])
    saved = load_config(timed.directory / "config.yaml")
    assert (saved.epochs, saved.steps, saved.minutes) == (None, steps, None)
    assert not (timed.directory / "timing").exists()
    # Everything but times.
    without = {"seconds", "images_per_second"}
    for row, likewise in zip(rows_of(timed), rows_of(given), strict=True):
        assert {n: v for n, v in row.items() if n not in without} == {
            n: v for n, v in likewise.items() if n not in without
        }


def test_another_number_of_steps_is_another_run(tmp_path: Path) -> None:
    """The control: the comparison above detects different runs."""
    settings = {**SETTINGS, "method": "byol", "options": OPTIONS["byol"]}
    runs = [
        noneg.train(noise(), out=str(tmp_path / str(steps)), steps=steps, **settings)
        for steps in (6, 7)
    ]
    with pytest.raises(AssertionError):
        assert_equal(checkpoint(runs[0])["state_dict"], checkpoint(runs[1])["state_dict"])


def test_the_schedule_of_a_part_of_an_epoch_is_complete(tmp_path: Path) -> None:
    """60 steps per epoch, and 40 in all: four of warm-up, instead of an epoch, then a cosine."""
    settings = {**SETTINGS, "log_every": 1, "optimizer": "sgd", "learning_rate": 0.32}
    run = noneg.train(noise(480), out=str(tmp_path / "run"), steps=40, **settings)
    rates = [float(row["learning_rate"]) for row in rows_of(run)]
    full = 0.32 * 8 / 256
    expected = [full * (step + 1) / 4 for step in range(4)]
    expected += [full * (1 + math.cos(math.pi * step / 36)) / 2 for step in range(36)]
    assert rates == pytest.approx(expected, rel=1e-4)
    assert {row["epoch"] for row in rows_of(run)} == {"0"}
    assert noneg.load(run.directory).info.data["epochs"] == 0.67
    assert (run.directory / "verdict.json").exists()


def test_an_epoch_that_is_begun_only_does_not_end(tmp_path: Path) -> None:
    """Targets held for an epoch of 5 steps, in a run of 7, are updated once."""

    def weights(hold: int | str) -> dict[str, torch.Tensor]:
        options = {**OPTIONS["simsiam"], "hold": hold}
        run = noneg.train(
            noise(),
            out=str(tmp_path / str(hold)),
            steps=7,
            **{**SETTINGS, "method": "simsiam", "options": options},
        )
        return run.encoder.module.state_dict()

    epoch, same, other = weights("epoch"), weights(5), weights(7)
    assert_equal(epoch, same)
    with pytest.raises(AssertionError):
        assert_equal(epoch, other)


@pytest.mark.parametrize(("steps", "scored"), [(4, []), (7, [5]), (10, [5, 10])])
def test_scores_are_those_of_whole_epochs(steps: int, scored: list[int], tmp_path: Path) -> None:
    run = noneg.train(
        noise(),
        labels=np.arange(43) % 2,
        out=str(tmp_path / "run"),
        steps=steps,
        knn_every=1,
        **SETTINGS,
    )
    rows = RunDirectory(run.directory).knn.read()
    assert [int(row["step"]) for row in rows] == scored
