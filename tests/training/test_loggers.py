"""Rows sent to TensorBoard, W&B and MLflow are read back offline, by their own readers."""

import json
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import pytest

from noneg.errors import NonegError
from noneg.training.config import LoggerName
from noneg.training.loggers import Logger, open_loggers

SETTINGS = {"method": "byol", "epochs": 2, "out": None, "options": {"tau": 0.5, "projector": (8,)}}
ROWS: list[tuple[int, dict[str, float]]] = [
    (1, {"loss": 2.0, "std_h": 0.25}),
    (10, {"loss": 1.5, "std_h": 0.5, "alpha_h": 1.25}),
    (20, {"loss": 1.0, "std_h": 0.75}),
]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    # So that the variables that the logger sets are restored as well.
    for name in ("MLFLOW_ALLOW_FILE_STORE", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "true")
        monkeypatch.delenv(name)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def send(name: LoggerName, directory: Path, rows: list[tuple[int, dict[str, float]]]) -> None:
    directory.mkdir(exist_ok=True)
    (logger,) = open_loggers([name], directory, SETTINGS)
    for step, row in rows:
        logger.log(row, step)
    logger.close()


def test_tensorboard_has_the_rows_and_a_resumed_run_replaces_its_later_ones(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    send("tensorboard", tmp_path, ROWS)
    send("tensorboard", tmp_path, [(10, {"loss": 1.25}), (20, {"loss": 0.5})])
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert [(each.step, each.value) for each in read.Scalars("loss")] == [
        (1, 2.0),
        (10, 1.25),
        (20, 0.5),
    ]
    assert [each.value for each in read.Scalars("std_h")] == [0.25]
    text = read.Tensors("settings/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "options.tau: 0.5" in text


def wandb_records(path: Path) -> list[Any]:
    """The records of W&B's file: protocol buffers in blocks of 32 KiB, as in LevelDB's log."""
    from wandb.proto.wandb_internal_pb2 import Record

    content = path.read_bytes()
    assert len(content) < 2**15, "a record may be split between blocks"
    records, start = [], 7
    while start + 7 <= len(content):
        _, length, _ = struct.unpack("<IHB", content[start : start + 7])
        record = Record()
        record.ParseFromString(content[start + 7 : start + 7 + length])
        records.append(record)
        start += 7 + length
    return records


def test_wandb_has_the_rows_and_a_resumed_run_keeps_its_id(tmp_path: Path) -> None:
    wandb = pytest.importorskip("wandb", reason="W&B is not installed")
    send("wandb", tmp_path, ROWS[:2])
    send("wandb", tmp_path, ROWS[1:])
    # A separate process writes the files: wait for it.
    wandb.teardown()
    files = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert len({file.name for file in files}) == 1
    rows: list[dict[str, float]] = []
    for file in files:
        records = wandb_records(file)
        rows += [
            {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in h.item}
            for h in (record.history for record in records if record.HasField("history"))
        ]
        (run,) = (record.run for record in records if record.HasField("run"))
        config = {item.key: json.loads(item.value_json) for item in run.config.update}
        assert config["options"] == {"tau": 0.5, "projector": [8]}
        assert (run.project, run.display_name) == ("noneg", tmp_path.name)
    sent = [
        {name: value for name, value in row.items() if not name.startswith("_")} for row in rows
    ]
    assert sent == [{**row, "step": step} for step, row in [*ROWS[:2], *ROWS[1:]]]


def test_mlflow_has_the_rows_and_a_resumed_run_keeps_its_id(tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="MLflow is not installed")
    from mlflow import MlflowClient

    directory = tmp_path / "my run"
    send("mlflow", directory, ROWS[:2])
    send("mlflow", directory, ROWS[2:])
    client = MlflowClient(tracking_uri=(directory / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("noneg")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("my run", "FINISHED")
    assert run.data.params["options.tau"] == "0.5"
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(each.step, each.value) for each in history] == [(1, 2.0), (10, 1.5), (20, 1.0)]
    assert [each.value for each in client.get_metric_history(run.info.run_id, "alpha_h")] == [1.25]


@pytest.mark.parametrize(
    ("name", "package"),
    [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb"), ("mlflow", "mlflow")],
)
def test_a_client_that_is_not_installed_is_named(
    name: LoggerName, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(NonegError, match=rf"--logger {name} needs .*'noneg\[{name}\]'"):
        open_loggers([name], tmp_path, SETTINGS)


def test_no_names_open_nothing(tmp_path: Path) -> None:
    assert open_loggers([], tmp_path, SETTINGS) == []
    assert not any(tmp_path.iterdir())


def test_a_service_that_fails_does_not_end_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    @final
    class Unreachable(Logger):
        name = "mlflow"
        tried = 0

        def _send(self, row: Mapping[str, int | float], step: int) -> None:
            self.tried += 1
            raise ConnectionError("no route\nto host")

        def close(self) -> None:
            pass

    logger = Unreachable()
    for step, row in ROWS:
        logger.log(row, step)
    assert logger.tried == 1
    assert capsys.readouterr().out == (
        "mlflow failed at step 1 (no route to host): the run continues without it; "
        "metrics.csv has all rows\n"
    )
