"""What a run's directory holds, every file optional: an old or unfinished run has a page too."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow
import pyarrow.csv
import yaml
from jaxtyping import Float64

from noneg.errors import NonegError
from noneg.images.source import printable

# What runs of earlier versions call a meter.
_OLDER_NAMES = {"rank": "effective_rank"}

Series = Float64[np.ndarray, " rows"]

FILES = {
    "config.yaml": "the settings",
    "metrics.csv": "loss, terms and meters over time",
    "spectra.csv": "spectra over time",
    "verdict.json": "the verdict",
    "run.json": "command, hardware and versions",
    "encoder": "the encoder",
}
"""What a page is made from. `scores.json` is there for labeled images alone."""


@final
@dataclass(frozen=True)
class Spectrum:
    """The eigenvalues of an embedding's covariance at one step, largest first."""

    step: int
    embedding: str
    eigenvalues: Float64[np.ndarray, " directions"]


@final
@dataclass(frozen=True, eq=False)
class RunFiles:
    """What was found; a mapping is empty where its file is missing or damaged.

    Attributes:
        directory: of the run.
        metrics: columns of metrics.csv, NaN where a cell is empty.
        spectra: rows of spectra.csv.
        settings: config.yaml.
        verdict: verdict.json.
        about: run.json.
        scores: scores.json.
        missing: for each file of `FILES` that is not there or damaged, a few words.
    """

    directory: Path
    metrics: Mapping[str, Series]
    spectra: tuple[Spectrum, ...]
    settings: Mapping[str, Any]
    verdict: Mapping[str, Any]
    about: Mapping[str, Any]
    scores: Mapping[str, Mapping[str, float]]
    missing: tuple[str, ...]

    @property
    def name(self) -> str:
        """The directory's own name."""
        return printable(self.directory.resolve().name)

    @property
    def terms(self) -> list[str]:
        """The columns between the loss and the learning rate."""
        names = list(self.metrics)
        if "loss" not in names or "learning_rate" not in names:
            return []
        return names[names.index("loss") + 1 : names.index("learning_rate")]

    @property
    def meters(self) -> dict[str, dict[str, str]]:
        """{"std": {"h": "std_h", "z": "std_z"}}: the columns that hold any number, by meter."""
        names = list(self.metrics)
        first = names.index("learning_rate") if "learning_rate" in names else 0
        found: dict[str, dict[str, str]] = {}
        for column in names[first:]:
            meter, _, embedding = column.rpartition("_")
            meter = _OLDER_NAMES.get(meter, meter)
            if meter and embedding in ("h", "z") and np.isfinite(self.metrics[column]).any():
                found.setdefault(meter, {})[embedding] = column
        return found

    def last(self, column: str) -> float | None:
        """The last number in a column of metrics.csv."""
        values = self.metrics.get(column)
        if values is None or not (finite := np.flatnonzero(~np.isnan(values))).size:
            return None
        return float(values[finite[-1]])

    @property
    def seconds(self) -> float | None:
        """Of training."""
        recorded = self.about.get("seconds")
        return float(recorded) if isinstance(recorded, int | float) else self.last("seconds")


def read_run(directory: Path) -> RunFiles:
    """Read all there is.

    Raises:
        NonegError: none of a run's files is there.
    """
    if not any((directory / name).exists() for name in FILES):
        raise NonegError(
            f"{printable(str(directory))} is not a run: it has none of {', '.join(FILES)}"
        )
    damaged: dict[str, str] = {}
    metrics = _read_metrics(directory / "metrics.csv", damaged)
    found = RunFiles(
        directory=directory,
        metrics=metrics,
        spectra=_read_spectra(directory / "spectra.csv", damaged),
        settings=_read_mapping(directory / "config.yaml", damaged),
        verdict=_read_mapping(directory / "verdict.json", damaged),
        about=_read_mapping(directory / "run.json", damaged),
        scores=_scores(_read_mapping(directory / "scores.json", damaged)),
        missing=(),
    )
    missing = [
        f"{name} ({what}{damaged.get(name, '')})"
        for name, what in FILES.items()
        if name in damaged or not (directory / name).exists()
    ]
    return RunFiles(**{**vars(found), "missing": tuple(missing)})


def _read_mapping(path: Path, damaged: dict[str, str]) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        loaded = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError):
        loaded = None
    if not isinstance(loaded, dict):
        damaged[path.name] = "; it cannot be read"
        return {}
    return loaded


def _scores(table: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The rows that are what `noneg.evaluation.scores.save_scores` writes."""
    return {
        features: {
            name: float(value) for name, value in row.items() if isinstance(value, int | float)
        }
        for features, row in table.items()
        if isinstance(row, dict) and isinstance(row.get("knn"), int | float)
    }


def _read_metrics(path: Path, damaged: dict[str, str]) -> dict[str, Series]:
    """Columns of numbers; a torn last line is left out."""
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8") as file:
            names = next(csv.reader(file), [])
        table = pyarrow.csv.read_csv(
            path,
            parse_options=pyarrow.csv.ParseOptions(invalid_row_handler=lambda _: "skip"),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pyarrow.float64())
            ),
        )
    except (OSError, ValueError, pyarrow.ArrowException):
        damaged[path.name] = "; it cannot be read"
        return {}
    if "step" not in table.column_names or not table.num_rows:
        return {}
    return {
        name: table.column(name).to_numpy(zero_copy_only=False).astype(np.float64)
        for name in table.column_names
    }


def _read_spectra(path: Path, damaged: dict[str, str]) -> tuple[Spectrum, ...]:
    """Rows of any length: h and z need not be equally wide."""
    if not path.exists():
        return ()
    found = []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            columns = {name: number for number, name in enumerate(next(rows, []))}
            step, embedding, first = (columns[name] for name in ("step", "embedding", "lambda_1"))
            for row in rows:
                values = np.array([float(cell) for cell in row[first:] if cell])
                if (values := values[np.isfinite(values)]).size:
                    found.append(Spectrum(int(row[step]), row[embedding], values))
    except (OSError, KeyError, IndexError, ValueError):
        # What a killed run left of its last row does not spoil the others.
        if not found:
            damaged[path.name] = "; it cannot be read"
    return tuple(found)
