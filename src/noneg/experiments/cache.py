"""Runs, kept by a hash of everything that decides them, and shared among studies."""

import csv
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, final

from noneg.encoder import FORMAT as ENCODER_FORMAT
from noneg.encoder import Encoder, load
from noneg.errors import DivergedError, NonegError
from noneg.experiments.meter import MeterCallback
from noneg.experiments.scoring import baselines, trained_scores
from noneg.experiments.study import Study, Variant
from noneg.files import whole_or_not_at_all
from noneg.training.config import TrainConfig, load_config, to_dict
from noneg.training.run import resume, start

FORMAT = 1
"""It rises when runs that were kept would no longer come out alike."""

_NUMBERS = "result.json"


@final
class Cache:
    """Finished and unfinished runs in one directory each, named by the hash of their settings."""

    def __init__(self, directory: Path, *, quick: bool) -> None:
        """Keep runs in `directory`/cache and what is not trained in `directory`/baselines."""
        self.runs = directory / "cache"
        self.baselines = directory / "baselines"
        self.quick = quick

    def directory(self, config: TrainConfig, meter_name: str) -> Path:
        """Where a run of these settings on these images is, or will be, wherever they lie."""
        settings = to_dict(config) | _images(config)
        # Loggers change no result.
        del settings["logger"]
        decides = [settings, meter_name, FORMAT, ENCODER_FORMAT]
        return self.runs / _hash_of(decides)

    def find(self, study: Study, variant: Variant, config: TrainConfig) -> dict[str, Any] | None:
        """What a finished run left: {"numbers": ..., "diverged": ...}; None if there is none."""
        directory = self.directory(config, study.meter_name)
        kept = _read(directory / _NUMBERS)
        if kept is None:
            return None
        if variant.memory:
            memory = _read(directory / "memory.json")
            if memory is None:
                return None
            kept["numbers"] |= memory
        if study.measure is not None and kept["diverged"] is None:
            measured = _read(directory / _measured(study))
            if measured is None:
                return None
            kept["numbers"] |= measured
        return kept

    def run(self, study: Study, variant: Variant, config: TrainConfig) -> dict[str, Any]:
        """Train what has not been trained, measure what has not been measured, and keep it.

        Raises:
            NonegError: the data or a setting cannot be used.
            KeyboardInterrupt: Ctrl-C; the run goes on when it is asked for again.
        """
        directory = self.directory(config, study.meter_name)
        if _read(directory / _NUMBERS) is None:
            begun = directory / "config.yaml"
            if begun.exists() and load_config(begun).data != config.data:
                # The images were moved since, and the run would look for them in vain.
                shutil.rmtree(directory)
            directory.mkdir(parents=True, exist_ok=True)
            self._train(study, config, directory)
        if variant.memory and not (directory / "memory.json").exists():
            peak = _peak_memory(directory / "config.yaml", config.data)
            _write(directory / "memory.json", {"memory_mb": peak})
        kept = _read(directory / _NUMBERS)
        assert kept is not None
        if study.measure is not None and kept["diverged"] is None:
            _write(directory / _measured(study), dict(study.measure(load(directory), self.quick)))
        found = self.find(study, variant, config)
        assert found is not None
        return found

    def _train(self, study: Study, config: TrainConfig, directory: Path) -> None:
        callbacks = [MeterCallback(directory, study.meter, config.log_every)] if study.meter else []
        diverged: str | None = None
        numbers: dict[str, float] = {}
        with (
            (directory / "log.txt").open("a", encoding="utf-8") as log,
            redirect_stdout(log),
            redirect_stderr(log),
        ):
            try:
                if (directory / "config.yaml").exists():
                    run = resume(directory, extra_callbacks=callbacks)
                else:
                    # Nobody reads a page a run, and it is no part of what the hash is of.
                    config = replace(config, out=str(directory), report=False)
                    run = start(config, extra_callbacks=callbacks)
                numbers = self._scores(run.encoder, run.config)
            except DivergedError as error:
                diverged = str(error)
        numbers = (
            _last_row(directory / "metrics.csv") | _last_row(directory / "meter.csv") | numbers
        )
        _write(directory / _NUMBERS, {"numbers": numbers, "diverged": diverged})
        # What a run is resumed from takes ten times the room of its encoder.
        shutil.rmtree(directory / "checkpoints", ignore_errors=True)

    def _scores(self, encoder: Encoder, config: TrainConfig) -> dict[str, float]:
        trained = trained_scores(encoder, config)
        if trained is None:
            return {}
        decides = [*_images(config).values(), config.backbone, config.size, config.channels]
        key = _hash_of([*decides, config.norm, config.seed, config.evaluation_images, FORMAT])
        path = self.baselines / f"{key}.json"
        if (kept := _read(path)) is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = baselines(encoder, config)
            _write(path, kept)
        return trained | kept


def _hash_of(decides: Sequence[Any]) -> str:
    text = json.dumps(decides, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _images(config: TrainConfig) -> dict[str, str | None]:
    return {
        "data": fingerprint(config.data),
        "eval_data": config.eval_data and fingerprint(config.eval_data),
    }


@cache
def fingerprint(data: str) -> str:
    """Of a file's bytes, or a folder's names and sizes; a data set's name stands for itself."""
    path = Path(data).expanduser()
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if path.is_dir():
        files = sorted(each for each in path.rglob("*") if each.is_file())
        return _hash_of([[str(each.relative_to(path)), each.stat().st_size] for each in files])
    return data


def _measured(study: Study) -> str:
    return f"measured-{study.name}.json"


def _peak_memory(config: Path, data: str) -> float:
    """Of two steps in a process of its own, in MB."""
    command = [sys.executable, "-m", "noneg.experiments.peak_memory", str(config), data]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines() or ["no reason given"]
        raise NonegError(f"peak memory could not be measured: {reason[-1]}")
    return float(done.stdout.split()[-1])


def _last_row(path: Path) -> dict[str, float]:
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: float(value) for name, value in rows[-1].items() if value} if rows else {}


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return kept


def _write(path: Path, numbers: Mapping[str, Any]) -> None:
    with whole_or_not_at_all(path) as unfinished:
        unfinished.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
