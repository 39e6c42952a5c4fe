"""Runs, kept under a hash of everything that decides their numbers, and shared by all studies."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import cache
from pathlib import Path
from time import process_time
from typing import Any, final

from noneg.encoder import FORMAT as ENCODER_FORMAT
from noneg.encoder import Encoder, load
from noneg.errors import DivergedError, NonegError
from noneg.experiments.recorder import BatchRecorder
from noneg.experiments.results import FinishedRun
from noneg.experiments.scoring import labeled_parts, score_baselines, score_encoder
from noneg.experiments.study import Study, Variant
from noneg.files import write_text
from noneg.records.directory import RunDirectory, read_json
from noneg.records.table import StepTable, numbers_of
from noneg.training.config import TrainConfig, to_dict
from noneg.training.faults import resume_command
from noneg.training.run import Run, resume, start

FORMAT = 2
"""Raise it when a kept run would no longer give the same numbers."""

_RESULT, _MEMORY = "result.json", "memory.json"


@final
class RunCache:
    """Finished and unfinished runs, one directory each, named by the hash of their settings.

    Beside a run's own files, its directory holds `result.json`, `memory.json` and one
    `measured-STUDY.json` per study with an encoder measure.
    """

    def __init__(self, directory: Path, *, quick: bool) -> None:
        """Keep runs in `directory`/cache, and scores of baselines in `directory`/baselines."""
        self.runs = directory / "cache"
        self.baselines = directory / "baselines"
        self.quick = quick

    def run_directory(self, study: Study, config: TrainConfig) -> RunDirectory:
        """The place of a run; it depends on the images, not on their path."""
        settings = to_dict(config) | _images_of(config)
        # Loggers change no result.
        del settings["logger"]
        return RunDirectory(
            self.runs / _hash_of([settings, study.batch_measure_name, FORMAT, ENCODER_FORMAT])
        )

    def finished(self, study: Study, variant: Variant, config: TrainConfig) -> FinishedRun | None:
        """The run with all its numbers; None if any of them is missing."""
        run = self.run_directory(study, config)
        result = read_json(run.path / _RESULT)
        if result is None:
            return None
        needed = [_MEMORY] if variant.measure_memory else []
        if study.encoder_measure is not None and result["diverged"] is None:
            needed.append(_measured(study))
        numbers = result["numbers"]
        for name in needed:
            if (more := read_json(run.path / name)) is None:
                return None
            numbers |= more
        # Runs were kept when "untrained" was called "random".
        numbers = {re.sub("^random_", "untrained_", name): n for name, n in numbers.items()}
        return FinishedRun(
            variant.name, config.seed, dict(variant.settings), numbers, result["diverged"], run
        )

    def run(self, study: Study, variant: Variant, config: TrainConfig) -> None:
        """Train and measure whatever is missing.

        Raises:
            NonegError: the data or a setting cannot be used.
            KeyboardInterrupt: Ctrl-C; the run continues when it is requested again.
        """
        run = self.run_directory(study, config)
        if not (run.path / _RESULT).exists():
            self._train(study, config, run)
        if variant.measure_memory and not (run.path / _MEMORY).exists():
            _write(run.path / _MEMORY, {"memory_mb": _peak_memory(run, config.data)})
        measure, measured = study.encoder_measure, run.path / _measured(study)
        if measure is None or measured.exists():
            return
        result = read_json(run.path / _RESULT)
        if result is not None and result["diverged"] is None:
            _write(measured, measure(load(run.encoder), self.quick))

    def _train(self, study: Study, config: TrainConfig, run: RunDirectory) -> None:
        _drop_if_moved(run, config)
        run.path.mkdir(parents=True, exist_ok=True)
        diverged: str | None = None
        scores: dict[str, float] = {}
        in_one_go, before = not run.exists(), process_time()
        spent: dict[str, float] = {}
        with (
            (run.path / "log.txt").open("a", encoding="utf-8") as log,
            redirect_stdout(log),
            redirect_stderr(log),
        ):
            try:
                trained = _start_or_resume(study, config, run)
                if in_one_go:
                    spent = {"cpu_seconds": process_time() - before}
                scores = self._scores(trained.encoder, trained.config)
            except DivergedError as error:
                diverged = str(error)
            except NonegError as error:
                # A study goes on with its runs by itself.
                again = str(error).replace(resume_command(run), "the same command again")
                raise NonegError(again) from error
        numbers = _last_row(run.metrics) | _last_row(run.study_meter) | spent | scores
        _write(run.path / _RESULT, {"numbers": numbers, "diverged": diverged})
        # Only an unfinished run needs its checkpoints, ten times as large as its encoder.
        shutil.rmtree(run.last_checkpoint.parent, ignore_errors=True)

    def _scores(self, encoder: Encoder, config: TrainConfig) -> dict[str, float]:
        parts = labeled_parts(encoder, config)
        if parts is None:
            return {}
        decides = [*_images_of(config).values(), config.backbone, config.size, config.channels]
        key = _hash_of([*decides, config.norm, config.seed, config.evaluation_images, FORMAT])
        path = self.baselines / f"{key}.json"
        kept = read_json(path)
        if kept is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = score_baselines(encoder, parts, config.seed)
            _write(path, kept)
        return score_encoder(encoder, parts) | kept


def _drop_if_moved(run: RunDirectory, config: TrainConfig) -> None:
    """Delete an unfinished run whose images have moved: it would look in the old place."""
    begun = run.read_config()
    places = config.data, config.eval_data
    if begun is not None and (begun["data"], begun["eval_data"]) != places:
        shutil.rmtree(run.path)


def _start_or_resume(study: Study, config: TrainConfig, run: RunDirectory) -> Run:
    recorders: list[BatchRecorder] = []
    if study.batch_measure is not None:
        recorders = [BatchRecorder(run.study_meter, study.batch_measure, config.log_every)]
    if run.exists():
        return resume(run.path, observers=recorders)
    # No report per run: it is not read, and not hashed.
    return start(replace(config, out=str(run.path), report=False), observers=recorders)


def _measured(study: Study) -> str:
    return f"measured-{study.name}.json"


def _hash_of(decides: Sequence[Any]) -> str:
    text = json.dumps(decides, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _images_of(config: TrainConfig) -> dict[str, str | None]:
    return {
        "data": fingerprint(config.data),
        "eval_data": config.eval_data and fingerprint(config.eval_data),
    }


@cache
def fingerprint(data: str) -> str:
    """A hash of a file's bytes or of a folder's file names and sizes; other names unchanged."""
    path = Path(data).expanduser()
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if path.is_dir():
        files = sorted(each for each in path.rglob("*") if each.is_file())
        return _hash_of([[str(each.relative_to(path)), each.stat().st_size] for each in files])
    return data


def _peak_memory(run: RunDirectory, data: str) -> float:
    """Peak memory of two steps in a separate process, in MB."""
    command = [sys.executable, "-m", "noneg.experiments.peak_memory", str(run.path), data]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines() or ["no reason given"]
        raise NonegError(f"peak memory could not be measured: {reason[-1]}")
    return float(done.stdout.split()[-1])


def _last_row(table: StepTable) -> dict[str, float]:
    rows = table.read()
    return numbers_of(rows[-1]) if rows else {}


def _write(path: Path, numbers: Mapping[str, Any]) -> None:
    # Not `write_json`: some measures are NaN.
    write_text(path, json.dumps(dict(numbers), indent=1) + "\n")
