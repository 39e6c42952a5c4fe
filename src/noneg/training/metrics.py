"""The rows of metrics.csv and spectra.csv."""

import time
from collections.abc import Mapping
from typing import final

import torch

from noneg.methods.base import Embeddings, Loss, Method
from noneg.records.directory import RunDirectory
from noneg.records.table import numbers_of
from noneg.training.metering import IMAGES_BETWEEN_SPECTRA, LARGEST_SPECTRUM, Metering
from noneg.training.plan import Plan, Steps


@final
class Metrics:
    """A row at the first step, every `--log-every` steps, and at the last step.

    Columns of metrics.csv: step; epoch; views (seen so far); seconds (of training, over all starts
    of the run); loss; one for each term; learning_rate; images_per_second; and the label-free
    meters of the last images' representations and projections, `std_h`, `std_z` ...
    (`noneg.diagnostics` explains them); and those of the method itself. Meters that need
    eigenvalues are measured less often, and their cells are empty in between. spectra.csv has the
    eigenvalues: step; epoch; embedding ("h" or "z"); lambda_1 ...

    Attributes:
        metering: the embeddings that the next row measures.
        history: all rows so far, as numbers; only on the first process.
    """

    def __init__(self, run: RunDirectory, plan: Plan, steps: Steps) -> None:
        """Write to the tables of `run`."""
        self.table = run.metrics
        self.spectra = run.spectra
        self.batch_size = plan.batch_size
        self.views_per_image = len(plan.policy)
        self.steps = steps
        self.every = plan.config.log_every
        images_per_row = plan.batch_size * self.every
        self.spectra_every = max(1, IMAGES_BETWEEN_SPECTRA // images_per_row) * self.every
        self.metering = Metering()
        self.history: list[dict[str, float]] = []
        self.seconds_before = 0.0
        self.started = 0.0
        self.last_time = 0.0
        self.last_step = 0

    def begin(self, step: int) -> None:
        """Drop the rows that a killed run wrote after its last checkpoint, and start the clock."""
        rows = self.table.forget_after(step)
        self.spectra.forget_after(step)
        self.history = [numbers_of(row) for row in rows]
        self.seconds_before = self.history[-1]["seconds"] if rows else 0.0
        self.started = self.last_time = time.perf_counter()
        self.last_step = step

    def rows(self) -> list[dict[str, float]]:
        """All rows so far; from the file if a finished run is resumed and takes no step."""
        return self.history or [numbers_of(row) for row in self.table.read()]

    def is_due(self, step: int) -> bool:
        """Whether this step has a row."""
        return step == 1 or step % self.every == 0 or step == self.steps.total

    @torch.no_grad()
    def write_row(
        self, step: int, loss: Loss, learning_rate: float, method: Method, embeddings: Embeddings
    ) -> dict[str, float]:
        """Measure and write a row; returns it as it reads back from the file.

        Args:
            step: the number of steps done.
            loss: of this step.
            learning_rate: of this step.
            method: whose own meters are measured, too.
            embeddings: of this step.
        """
        now = time.perf_counter()
        images = (step - self.last_step) * self.batch_size
        epoch = (step - 1) // self.steps.per_epoch
        row: dict[str, int | float] = {
            "step": step,
            "epoch": epoch,
            "views": step * self.batch_size * self.views_per_image,
            "seconds": self.seconds_before + now - self.started,
            "loss": float(loss.value),
            **{name: float(value) for name, value in loss.terms.items()},
            "learning_rate": learning_rate,
            "images_per_second": images / max(now - self.last_time, 1e-9),
        }
        self.last_time, self.last_step = now, step
        if step == 1 or step % self.spectra_every == 0 or step == self.steps.total:
            self._write_spectra(step, epoch)
            row |= self.metering.full()
        else:
            row |= self.metering.quick()
        row |= method.meters(embeddings)
        # Rounded as in the file, so that a resumed run judges by the same numbers.
        self.history.append(numbers_of(self.table.append(row)))
        return self.history[-1]

    def _write_spectra(self, step: int, epoch: int) -> None:
        for name, eigenvalues in self.metering.spectra().items():
            # The first row decides the columns, so it needs all that may follow.
            empty = [""] * (LARGEST_SPECTRUM - len(eigenvalues))
            padded: list[float | str] = [*eigenvalues, *empty]
            row: dict[str, int | float | str] = {"step": step, "epoch": epoch, "embedding": name}
            columns = {f"lambda_{i}": value for i, value in enumerate(padded, start=1)}
            self.spectra.append(row | columns)


def summarize(row: Mapping[str, float], loss: Loss) -> str:
    """The text of the progress bar after a row."""
    parts = " + ".join(f"{name} {row[name]:.3g}" for name in loss.terms)
    # A single term is the loss itself.
    total = f"loss {row['loss']:.4g}" + (f" = {parts}" if len(loss.terms) > 1 else "")
    return f"{total}, {row['images_per_second']:.0f} images/s, std {row['std_z']:.2f}"
