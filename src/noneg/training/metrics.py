"""What a run says while it trains: a progress bar, metrics.csv, spectra.csv, and TensorBoard."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from tqdm import tqdm

from noneg.records.table import StepTable
from noneg.training.engine import Engine
from noneg.training.metering import IMAGES_BETWEEN_SPECTRA, LARGEST_SPECTRUM, Metering


@final
class Reporting(Callback):
    """Rows of metrics, at the first step, every so many steps, and at the last.

    Columns of metrics.csv: step; epoch; views (seen so far); seconds (of training, over all its
    sessions); loss; one for each term; learning_rate; images_per_second; and the label-free meters
    of the last images' representations and projections, `std_h`, `std_z` ... (`noneg.diagnostics`
    says what they mean). Those that need eigenvalues are measured now and then, and are empty in
    between. spectra.csv has the eigenvalues: step; epoch; embedding ("h" or "z"); lambda_1 ...
    """

    def __init__(self, directory: Path, total_steps: int, every: int, batch_size: int) -> None:
        """Append to `directory`/metrics.csv and spectra.csv."""
        self.metrics = StepTable(directory / "metrics.csv")
        self.spectra = StepTable(directory / "spectra.csv")
        self.total_steps = total_steps
        self.every = every
        self.spectra_every = max(1, IMAGES_BETWEEN_SPECTRA // (batch_size * every)) * every
        self.metering = Metering()
        self.history: list[dict[str, float]] = []
        self.bar: tqdm[Any] | None = None
        self.seconds_before = 0.0
        self.started = 0.0
        self.last_time = 0.0
        self.last_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop the rows that a killed run wrote after its last checkpoint, and start the bar."""
        self.started = self.last_time = time.perf_counter()
        self.last_step = trainer.global_step
        self.metering.set_precision(str(trainer.precision))
        if not trainer.is_global_zero:
            return
        rows = self.metrics.forget_after(trainer.global_step)
        self.spectra.forget_after(trainer.global_step)
        self.history = [numbers_of(row) for row in rows]
        self.seconds_before = self.history[-1]["seconds"] if rows else 0.0
        self.bar = tqdm(
            total=self.total_steps,
            initial=trainer.global_step,
            desc="train",
            unit="step",
            dynamic_ncols=True,
            # A log file gets a line now and then, not a screen that is drawn anew.
            mininterval=0.2 if sys.stderr.isatty() else 20,
        )

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Advance the bar, and write a row where one is due."""
        assert isinstance(pl_module, Engine)
        assert pl_module.latest is not None
        step = trainer.global_step
        if not trainer.is_global_zero:
            return
        self.metering.see(pl_module.latest[1])
        if self.bar is not None:
            self.bar.update()
        if self.is_due(step):
            row = self._row(pl_module, step)
            # As it reads back, so that a resumed run judges by the same numbers.
            self.history.append(numbers_of(self.metrics.append(row)))
            if trainer.logger is not None:
                trainer.logger.log_metrics(row, step)
            if self.bar is not None:
                self.bar.set_postfix_str(self._summary(pl_module, row), refresh=False)

    def rows(self) -> list[dict[str, float]]:
        """All rows so far; where a finished run is resumed and takes no step, those of its file."""
        return self.history or [numbers_of(row) for row in self.metrics.read()]

    def is_due(self, step: int) -> bool:
        """Whether this step has a row."""
        return step == 1 or step % self.every == 0 or step == self.total_steps

    @staticmethod
    def _summary(engine: Engine, row: dict[str, int | float]) -> str:
        assert engine.latest is not None
        terms = engine.latest[0].terms
        parts = " + ".join(f"{name} {row[name]:.3g}" for name in terms)
        # A single term is the loss itself.
        loss = f"loss {row['loss']:.4g}" + (f" = {parts}" if len(terms) > 1 else "")
        return f"{loss}, {row['images_per_second']:.0f} images/s, std {row['std_z']:.2f}"

    @torch.no_grad()
    def _row(self, engine: Engine, step: int) -> dict[str, int | float]:
        assert engine.latest is not None
        outcome, _ = engine.latest
        now = time.perf_counter()
        images = (step - self.last_step) * engine.batch_size
        epoch = (step - 1) // engine.steps_per_epoch
        row: dict[str, int | float] = {
            "step": step,
            "epoch": epoch,
            "views": step * engine.batch_size * len(engine.policy),
            "seconds": self.seconds_before + now - self.started,
            "loss": float(outcome.value),
            **{name: float(value) for name, value in outcome.terms.items()},
            "learning_rate": engine.trainer.optimizers[0].param_groups[0]["lr"],
            "images_per_second": images / max(now - self.last_time, 1e-9),
        }
        self.last_time, self.last_step = now, step
        if step != 1 and step % self.spectra_every and step != self.total_steps:
            return row | self.metering.quick()
        for name, eigenvalues in self.metering.spectra().items():
            # Columns for the longest there can be, since the first row decides them.
            empty = [""] * (LARGEST_SPECTRUM - len(eigenvalues))
            padded: list[float | str] = [*eigenvalues, *empty]
            spectrum: dict[str, int | float | str] = {
                "step": step,
                "epoch": epoch,
                "embedding": name,
                **{f"lambda_{i}": value for i, value in enumerate(padded, start=1)},
            }
            self.spectra.append(spectrum)
        return row | self.metering.full()

    def state_dict(self) -> dict[str, Any]:
        """The embeddings that the next row is about, so that a resumed run has the same rows."""
        return {"metering": self.metering.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See `state_dict`."""
        self.metering.load_state_dict(state_dict["metering"])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Close the bar, so that the sentence that follows stands on its own line."""
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def numbers_of(row: Mapping[str, str]) -> dict[str, float]:
    """A row of metrics.csv without its empty cells."""
    return {name: float(value) for name, value in row.items() if value != ""}
