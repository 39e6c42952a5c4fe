"""`--continue-from`: the finished run whose last weights another run begins with."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from noneg.errors import NonegError
from noneg.methods.base import Method
from noneg.records.directory import RunDirectory
from noneg.training.checkpoints import load_weights, read_checkpoint
from noneg.training.config import KEPT, TrainConfig, check_kept, load_config, to_dict


@final
@dataclass(frozen=True)
class Origin:
    """Where the first weights of a continued run are from; run.json has it.

    Args:
        run: the directory of the finished run, as it was given.
        steps: steps that it took.
        next_epoch: the first epoch whose views it has not seen.
        command: its command.
        started: its last start: ISO 8601, UTC.
        images: the number of its images; None if it is not recorded.
        start_rows: the first two rows of metrics.csv of the run that began with untrained weights,
            as they are written there.
        origin: of that run, if it continued another one.
    """

    run: str
    steps: int
    next_epoch: int
    command: str | None
    started: str | None
    images: int | None
    start_rows: list[dict[str, str]]
    origin: Mapping[str, Any] | None


def find_origin(config: TrainConfig, resumed: RunDirectory | None) -> Origin | None:
    """The origin of a run; None if it begins with untrained weights.

    A resumed run with a checkpoint needs no other run, so its own run.json has the answer.

    Args:
        config: of the run, complete.
        resumed: the run's directory, if it is resumed.

    Raises:
        NonegError: the former run is missing, unfinished or damaged, or had other images or another
            network.
    """
    if config.continue_from is None:
        return None
    if resumed is not None and resumed.last_checkpoint.exists():
        recorded = (resumed.read_provenance() or {}).get("origin")
        if isinstance(recorded, dict):
            return Origin(**recorded)
    run = RunDirectory(Path(config.continue_from))
    former = load_config(run.config_file)
    check_kept(to_dict(config), to_dict(former), config.continue_from, KEPT)
    if not run.encoder.exists():
        raise NonegError(
            f"{run.path} is not finished, and could still change: finish it with noneg train "
            f"--resume {run.path}"
        )
    rows = run.metrics.read()
    for file in (run.metrics.path, run.last_checkpoint):
        if not file.exists():
            raise NonegError(f"{run.path} cannot be continued without {file}: copy the run again")
    provenance = run.read_provenance() or {}
    earlier = provenance.get("origin") or {}
    return Origin(
        run=config.continue_from,
        steps=int(rows[-1]["step"]),
        next_epoch=(former.first_epoch or 0) + int(rows[-1]["epoch"]) + 1,
        command=provenance.get("command"),
        started=provenance.get("started"),
        images=(provenance.get("data") or {}).get("images"),
        start_rows=earlier.get("start_rows") or rows[:2],
        origin=earlier or None,
    )


def load_origin(method: Method, run: str) -> None:
    """Give a method all that the last checkpoint of a run holds of it: heads, targets, queues ...

    Raises:
        NonegError: the checkpoint is damaged, or does not fit.
    """
    path = RunDirectory(Path(run)).last_checkpoint
    try:
        checkpoint = read_checkpoint(path)
    except NonegError as error:
        raise NonegError(
            f"{run} cannot be continued, because {path} is damaged: copy the run again"
        ) from error
    try:
        load_weights(method, checkpoint)
    except NonegError as error:
        raise NonegError(
            f"the networks of {run} do not fit the --options of this run: leave out those that "
            "change a width or a part of the networks"
        ) from error
    method.begin_again()
