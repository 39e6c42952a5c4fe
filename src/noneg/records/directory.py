"""The directory of a run: the names of its files, and a reader and a writer for each."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import yaml

from noneg.errors import NonegError
from noneg.files import read_fields, write_json, write_text
from noneg.records.table import StepTable


@final
@dataclass(frozen=True)
class RunDirectory:
    """The directory with all files of one run.

    Readers return None if a file is missing; each caller decides whether that is an error.
    Writers replace a file only when its new content is complete.

    Args:
        path: the directory; it need not exist yet.
    """

    path: Path

    def exists(self) -> bool:
        """Whether a run has been started here."""
        return self.config_file.exists()

    def link_to_elsewhere(self) -> Path | None:
        """A link in the directory, or in a directory in it, that leads out of it."""
        inside = self.path.resolve()
        for folder in (self.path, *(each for each in self.path.iterdir() if each.is_dir())):
            for each in folder.iterdir():
                if each.is_symlink() and not each.resolve().is_relative_to(inside):
                    return each
        return None

    # Settings and provenance

    @property
    def config_file(self) -> Path:
        """Every setting, as YAML."""
        return self.path / "config.yaml"

    def read_config(self) -> dict[str, Any] | None:
        """The settings as plain values; `noneg.training.config` checks and types them.

        Raises:
            NonegError: the file cannot be read, is not YAML, or holds no settings.
        """
        return read_settings(self.config_file)

    def write_config(self, settings: Mapping[str, Any]) -> None:
        """Write the settings, given as plain values, in their order."""
        write_text(self.config_file, yaml.safe_dump(dict(settings), sort_keys=False))

    @property
    def provenance_file(self) -> Path:
        """See `read_provenance`."""
        return self.path / "run.json"

    def read_provenance(self) -> dict[str, Any] | None:
        """run.json: command, hardware, versions and data."""
        return read_json(self.provenance_file)

    def write_provenance(self, fields: Mapping[str, Any]) -> None:
        """See `read_provenance`."""
        write_json(self.provenance_file, fields)

    # During training

    @property
    def lock_file(self) -> Path:
        """Held by the process that writes here; it is removed when the run ends."""
        return self.path / "run.lock"

    @property
    def metrics(self) -> StepTable:
        """Loss, terms, speed and label-free meters."""
        return StepTable(self.path / "metrics.csv")

    @property
    def spectra(self) -> StepTable:
        """Eigenvalues of the embeddings' covariance."""
        return StepTable(self.path / "spectra.csv")

    @property
    def knn(self) -> StepTable:
        """Nearest-neighbor accuracy, with `--knn-every`."""
        return StepTable(self.path / "knn.csv")

    @property
    def study_meter(self) -> StepTable:
        """What a study measures during training."""
        return StepTable(self.path / "meter.csv")

    @property
    def last_checkpoint(self) -> Path:
        """What `--resume` continues from."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def healthy_checkpoint(self) -> Path:
        """What `--on-collapse rollback` goes back to."""
        return self.path / "checkpoints" / "healthy.ckpt"

    @property
    def candidate_checkpoint(self) -> Path:
        """Becomes the healthy checkpoint if the run stays healthy."""
        return self.path / "checkpoints" / "candidate.ckpt"

    @property
    def timing_directory(self) -> Path:
        """Scratch of `--minutes`, removed before the first step."""
        return self.path / "timing"

    @property
    def pixels_file(self) -> Path:
        """Decoded images, with `--cache disk`."""
        return self.path / "images.bytes"

    @property
    def teacher_features(self) -> Path:
        """A teacher's features of the images, an array [N, D]."""
        return self.path / "teacher.npy"

    @property
    def skipped_file(self) -> Path:
        """Images that could not be read, and why."""
        return self.path / "skipped.csv"

    # Results

    @property
    def encoder(self) -> Path:
        """The directory of the encoder."""
        return self.path / "encoder"

    @property
    def start(self) -> Path:
        """The directory of the encoder that the run began with, with `--start`."""
        return self.path / "start"

    @property
    def verdict_file(self) -> Path:
        """See `read_verdict`."""
        return self.path / "verdict.json"

    def read_verdict(self) -> dict[str, Any] | None:
        """State, sentence, numbers, causes and history."""
        return read_json(self.verdict_file)

    def write_verdict(self, fields: Mapping[str, Any]) -> None:
        """See `read_verdict`."""
        write_json(self.verdict_file, fields)

    @property
    def meters_file(self) -> Path:
        """See `read_meters`."""
        return self.path / "meters.json"

    def read_meters(self) -> dict[str, Any] | None:
        """All label-free meters at the end of the run, of the trained and the untrained network.

        {"images": ..., "views": ..., "trained": {"h": {meter: value}, "z": ...}, "untrained": ...}
        With `--start` also "start".
        """
        return _with_untrained(read_json(self.meters_file))

    def write_meters(self, fields: Mapping[str, Any]) -> None:
        """See `read_meters`."""
        write_json(self.meters_file, fields)

    @property
    def scores_file(self) -> Path:
        """See `read_scores`."""
        return self.path / "scores.json"

    def read_scores(self) -> dict[str, Any] | None:
        """Accuracies by kind of features; None without labels.

        "trained", "untrained", "pixels" and "patches"; with `--start` also "start". Earlier
        versions have no patches, and no `knn_raw`: their `knn` is that of features as they are.
        """
        return _with_untrained(read_json(self.scores_file))

    def write_scores(self, fields: Mapping[str, Any]) -> None:
        """See `read_scores`."""
        write_json(self.scores_file, fields)

    @property
    def curve_file(self) -> Path:
        """See `read_curve`."""
        return self.path / "curve.json"

    def read_curve(self) -> dict[str, Any] | None:
        """Accuracy against the number of labels, if `noneg curve` was run.

        {"points": [{"features": ..., "per_class": ..., "labels": ..., "accuracies": [...]}, ...]};
        `per_class` is null for all labels.
        """
        return read_json(self.curve_file)

    def write_curve(self, fields: Mapping[str, Any]) -> None:
        """See `read_curve`."""
        write_json(self.curve_file, fields)

    @property
    def report_file(self) -> Path:
        """The report, an HTML page."""
        return self.path / "report.html"


def read_settings(path: Path) -> dict[str, Any] | None:
    """A YAML file of settings; None if it is missing.

    Raises:
        NonegError: it cannot be read, is not YAML, or holds no settings.
    """
    try:
        return read_fields(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NonegError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise NonegError(f"{path} is not YAML of noneg's: {error}") from None


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object; None if the file is missing.

    Raises:
        NonegError: it cannot be read, or holds something else.
    """
    try:
        return read_fields(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise NonegError(f"{path} cannot be read ({error}): copy the run again") from None


def _with_untrained(fields: dict[str, Any] | None) -> dict[str, Any] | None:
    """Version 0.1.0 calls the untrained network "random"."""
    if fields is None:
        return None
    return {"untrained" if name == "random" else name: each for name, each in fields.items()}
