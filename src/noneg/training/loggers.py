"""Send rows of metrics.csv to TensorBoard, Weights & Biases and MLflow, through their clients.

All metrics are in metrics.csv; `--logger` names further places that show them. No decision depends
on a logger: if a service fails during a run, the run continues without it.
"""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from noneg.errors import NonegError
from noneg.files import write_json
from noneg.progress import say_above
from noneg.records.directory import read_json
from noneg.training.config import LoggerName

PROJECT = "noneg"
"""The W&B project and the MLflow experiment, unless their environment variables name another."""


class Logger(ABC):
    """A service or file that receives rows of metrics."""

    name: LoggerName

    def __init__(self) -> None:
        """Start without a failure."""
        self._failed = False

    def log(self, row: Mapping[str, int | float], step: int) -> None:
        """Send one row; a failure is reported once, and then nothing more is sent."""
        if self._failed:
            return
        try:
            self._send(row, step)
        except Exception as error:
            self._failed = True
            say_above(
                f"{self.name} failed at step {step} ({' '.join(str(error).split())}): the run "
                "continues without it; metrics.csv has all rows"
            )

    @abstractmethod
    def _send(self, row: Mapping[str, int | float], step: int) -> None:
        """Send one row; may raise any exception of the client."""

    @abstractmethod
    def close(self) -> None:
        """Send the remaining rows, and mark the run as finished."""


def open_loggers(
    names: Sequence[LoggerName], directory: Path, settings: Mapping[str, Any]
) -> list[Logger]:
    """Open the named loggers for a run.

    A resumed run continues the same W&B and MLflow run, whose ids are in loggers.json in its
    directory. Local files are written to this directory too.

    Args:
        names: each at most once, in any order.
        directory: the existing directory of the run.
        settings: the run's settings, shown with its metrics; values may be nested.

    Raises:
        NonegError: a client is not installed, or refuses to start.
    """
    kinds = {kind.name: kind for kind in (TensorBoard, WeightsAndBiases, MLflow)}
    opened: list[Logger] = []
    try:
        for name in names:
            opened.append(kinds[name](directory, settings))
    except BaseException as error:
        for logger in opened:
            logger.close()
        if isinstance(error, ModuleNotFoundError):
            raise NonegError(
                f"--logger {name} needs {error.name}: pip install 'noneg[{name}]'"
            ) from error
        raise
    return opened


@final
class TensorBoard(Logger):
    """Event files in the folder `tensorboard/` of the run's directory."""

    name = "tensorboard"

    def __init__(self, directory: Path, settings: Mapping[str, Any]) -> None:
        """Import the client; the file is opened for the first row."""
        super().__init__()
        from torch.utils.tensorboard import SummaryWriter

        self._make_writer = SummaryWriter
        self._directory = directory / "tensorboard"
        self._settings = settings
        self._writer: Any = None

    def _send(self, row: Mapping[str, int | float], step: int) -> None:
        if self._writer is None:
            # A resumed run repeats the steps after its last checkpoint: hide their first rows.
            self._writer = self._make_writer(str(self._directory), purge_step=step)
            lines = [f"    {name}: {value}" for name, value in _flat(self._settings)]
            self._writer.add_text("settings", "\n".join(lines), 0)
        for name, value in row.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()


@final
class WeightsAndBiases(Logger):
    """A W&B run; W&B's environment variables apply, such as WANDB_MODE=offline."""

    name = "wandb"

    def __init__(self, directory: Path, settings: Mapping[str, Any]) -> None:
        """Start a run, or continue the run of this directory."""
        super().__init__()
        import wandb

        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                name=os.environ.get("WANDB_NAME", directory.name),
                dir=directory,
                id=_read_id(directory, self.name),
                resume="allow",
                config=dict(settings),
                # Do not capture the output, and do not close a run that the caller has opened.
                settings=wandb.Settings(console="off", reinit="create_new"),
            )
        except wandb.Error as error:
            raise NonegError(
                f"--logger wandb cannot start ({' '.join(str(error).split())}): run wandb login, "
                "or set WANDB_MODE=offline"
            ) from error
        _save_id(directory, self.name, self._run.id)
        # W&B's own step cannot go back, but the step of a resumed run does.
        self._run.define_metric("*", step_metric="step")

    def _send(self, row: Mapping[str, int | float], step: int) -> None:
        self._run.log({**row, "step": step})

    def close(self) -> None:
        """Wait until W&B has all rows."""
        self._run.finish()


@final
class MLflow(Logger):
    """An MLflow run, at MLFLOW_TRACKING_URI or in the folder `mlflow/` of the run's directory."""

    name = "mlflow"

    def __init__(self, directory: Path, settings: Mapping[str, Any]) -> None:
        """Start a run, or continue the run of this directory."""
        super().__init__()
        place = os.environ.get("MLFLOW_TRACKING_URI")
        if not place:
            place = (directory.absolute() / "mlflow").as_uri()
            # MLflow refuses files unless told so, and reports its use over the network.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param
        from mlflow.exceptions import MlflowException

        self._make_metric = Metric
        try:
            self._client = MlflowClient(tracking_uri=place)
            known = _read_id(directory, self.name)
            if known is not None:
                self._run = self._client.get_run(known).info.run_id
                self._client.update_run(self._run, status="RUNNING")
                return
            experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            found = self._client.get_experiment_by_name(experiment)
            number = found.experiment_id if found else self._client.create_experiment(experiment)
            run = self._client.create_run(number, run_name=directory.name)
            self._run = run.info.run_id
            # MLflow takes at most 6,000 characters.
            params = [Param(name, str(value)[:6000]) for name, value in _flat(settings)]
            self._client.log_batch(self._run, params=params)
        except MlflowException as error:
            raise NonegError(
                f"--logger mlflow cannot start at {place} ({' '.join(str(error).split())}): set "
                "MLFLOW_TRACKING_URI to a server that can be reached, or unset it"
            ) from error
        _save_id(directory, self.name, self._run)

    def _send(self, row: Mapping[str, int | float], step: int) -> None:
        now = int(1000 * time.time())
        metrics = [self._make_metric(name, float(value), now, step) for name, value in row.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def close(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._run)


def _read_id(directory: Path, name: str) -> str | None:
    return (read_json(directory / "loggers.json") or {}).get(name)


def _save_id(directory: Path, name: str, value: str) -> None:
    ids = read_json(directory / "loggers.json") or {}
    write_json(directory / "loggers.json", ids | {name: value})


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("options.tau", 0.99) for each setting."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
