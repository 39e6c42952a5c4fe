"""Read all files of a run's directory at once; each file may be missing or damaged."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, final

import numpy as np
from jaxtyping import Float64

from noneg.errors import NonegError, printable
from noneg.records.directory import RunDirectory
from noneg.records.table import StepTable

Series = Float64[np.ndarray, " rows"]

Accuracies = Float64[np.ndarray, "_"]
"""In [0, 1], one per choice of the labeled images."""
Meters = Mapping[str, Mapping[str, float]]
"""{"h": {"std": 0.7, ...}, "z": {...}}"""

EARLIER_KNN = (
    "Runs of earlier versions have the kNN of features as they are, the others that of whitened "
    "features: do not compare these."
)
"""For pages and tables with both; see `noneg.evaluation.standardize`."""

Read = TypeVar("Read")


@final
@dataclass(frozen=True)
class SpectrumRow:
    """A row of spectra.csv: eigenvalues of an embedding's covariance at one step, largest first."""

    step: int
    embedding: str
    eigenvalues: Float64[np.ndarray, " directions"]


@final
@dataclass(frozen=True)
class FinalMeters:
    """The label-free meters at the end of a run, from meters.json.

    Attributes:
        images: number of images that were measured; None if it is not recorded.
        trained: meters of h and z, without those that could not be measured.
        untrained: the same for the untrained network.
        start: of h, for the network that the run began with, with `--start`.
    """

    images: int | None
    trained: Meters
    untrained: Meters
    start: Meters


@final
@dataclass(frozen=True, eq=False)
class RunFiles:
    """The contents of a run's files; a field is empty if its file is missing or damaged.

    Attributes:
        directory: the directory of the run.
        metrics: columns of metrics.csv, NaN where a cell is empty.
        spectra: rows of spectra.csv.
        settings: config.yaml.
        verdict: verdict.json.
        provenance: run.json.
        final_meters: meters.json.
        scores: scores.json, which only runs on labeled images have.
        curve: curve.json: accuracies by features and number of labels, fewest labels first.
        missing: a few words for each file that is missing or damaged.
    """

    directory: Path
    metrics: Mapping[str, Series]
    spectra: tuple[SpectrumRow, ...]
    settings: Mapping[str, Any]
    verdict: Mapping[str, Any]
    provenance: Mapping[str, Any]
    final_meters: FinalMeters
    scores: Mapping[str, Mapping[str, float]]
    curve: Mapping[str, Mapping[int, Accuracies]]
    missing: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of the directory, without its path."""
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
        """{"std": {"h": "std_h", "z": "std_z"}}: the columns of each meter that hold a number."""
        names = list(self.metrics)
        first = names.index("learning_rate") if "learning_rate" in names else 0
        found: dict[str, dict[str, str]] = {}
        for column in names[first:]:
            meter, _, embedding = column.rpartition("_")
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
        """Duration of the training in seconds; None if it is not recorded."""
        recorded = _numbers(self.provenance).get("seconds")
        return self.last("seconds") if recorded is None else recorded


def read_run(path: Path) -> RunFiles:
    """Read every file of a run that can be read.

    Raises:
        NonegError: the directory holds none of a run's files.
    """
    directory = RunDirectory(path)
    expected = {
        directory.config_file: "the settings",
        directory.metrics.path: "loss, terms and meters over time",
        directory.spectra.path: "spectra over time",
        directory.verdict_file: "the verdict",
        directory.meters_file: "the meters at the end",
        directory.provenance_file: "command, hardware and versions",
        directory.encoder: "the encoder",
    }
    if not any(file.exists() for file in expected):
        names = ", ".join(file.name for file in expected)
        raise NonegError(f"{printable(str(path))} is not a run: it has none of {names}")
    missing = [f"{file.name} ({what})" for file, what in expected.items() if not file.exists()]

    def read(file: Path, reader: Callable[[], Read | None], empty: Read) -> Read:
        try:
            found = reader()
        except NonegError:
            what = expected.get(file, "accuracies")
            missing.append(f"{file.name} ({what}; it cannot be read)")
            return empty
        return empty if found is None else found

    nothing: dict[str, Any] = {}
    return RunFiles(
        directory=path,
        metrics=_over_steps(read(directory.metrics.path, directory.metrics.read_numbers, {})),
        spectra=read(directory.spectra.path, lambda: _spectra(directory.spectra), ()),
        settings=read(directory.config_file, directory.read_config, nothing),
        verdict=read(directory.verdict_file, directory.read_verdict, nothing),
        provenance=read(directory.provenance_file, directory.read_provenance, nothing),
        final_meters=final_meters_in(read(directory.meters_file, directory.read_meters, nothing)),
        scores=scores_in(read(directory.scores_file, directory.read_scores, nothing)),
        curve=_curve(read(directory.curve_file, directory.read_curve, nothing)),
        missing=tuple(missing),
    )


def _over_steps(columns: Mapping[str, Series]) -> Mapping[str, Series]:
    return columns if "step" in columns and len(columns["step"]) else {}


def _spectra(table: StepTable) -> tuple[SpectrumRow, ...]:
    """Rows of different lengths: h and z may differ in width, and the last row may be cut off.

    Raises:
        NonegError: the file cannot be read, or none of its rows can.
    """
    found: list[SpectrumRow] = []
    broken = False
    for row in table.read():
        cells = [cell for name, cell in row.items() if name.startswith("lambda_") and cell]
        try:
            values = np.array([float(cell) for cell in cells], dtype=np.float64)
            if (values := values[np.isfinite(values)]).size:
                found.append(SpectrumRow(int(row["step"]), row["embedding"], values))
        except (KeyError, ValueError):
            broken = True
    if broken and not found:
        raise NonegError(f"{table.path} holds no spectrum")
    return tuple(found)


def final_meters_in(fields: Mapping[str, Any]) -> FinalMeters:
    """What meters.json holds, without what is no number."""
    images = fields.get("images")
    trained, untrained, start = (
        {
            embedding: _numbers(meters)
            for embedding, meters in _mapping(fields.get(which)).items()
            if isinstance(meters, Mapping)
        }
        for which in ("trained", "untrained", "start")
    )
    return FinalMeters(images if isinstance(images, int) else None, trained, untrained, start)


def scores_in(fields: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The rows of scores.json with a nearest-neighbor accuracy, without what is no number."""
    rows = {features: _numbers(_mapping(row)) for features, row in fields.items()}
    return {features: row for features, row in rows.items() if "knn" in row}


def _curve(fields: Mapping[str, Any]) -> dict[str, dict[int, Accuracies]]:
    """The points that are whole, by features, and by number of labels."""
    found: dict[str, dict[int, Accuracies]] = {}
    points = fields.get("points")
    for point in points if isinstance(points, list) else ():
        try:
            values = np.array(point["accuracies"], dtype=np.float64)
            if values.ndim == 1 and values.size and np.isfinite(values).all():
                found.setdefault(str(point["features"]), {})[int(point["labels"])] = values
        except (KeyError, TypeError, ValueError):
            continue
    return {name: dict(sorted(rows.items())) for name, rows in found.items()}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if isinstance(value, int | float)}
