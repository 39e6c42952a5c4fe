"""What a run says while it trains: a progress bar, metrics.csv, and TensorBoard where installed."""

import csv
import sys
import time
from pathlib import Path
from typing import Any, final

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from tqdm import tqdm

from noneg.diagnostics import effective_rank, normalized_std
from noneg.training.engine import Engine


@final
class Reporting(Callback):
    """Rows of metrics, at the first step, every so many steps, and at the last.

    Columns: step; epoch; views (seen so far); seconds (of training, over all its sessions); loss;
    one for each term; learning_rate; images_per_second; std_h, std_z (of the normalised embedding:
    1 healthy, 0 collapsed); rank_h, rank_z (effective rank), of the whole batch.
    """

    def __init__(self, directory: Path, total_steps: int, every: int) -> None:
        """Append to `directory`/metrics.csv."""
        self.path = directory / "metrics.csv"
        self.total_steps = total_steps
        self.every = every
        self.bar: tqdm[Any] | None = None
        self.seconds_before = 0.0
        self.started = 0.0
        self.last_time = 0.0
        self.last_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop the rows that a killed run wrote after its last checkpoint, and start the bar."""
        self.started = self.last_time = time.perf_counter()
        self.last_step = trainer.global_step
        if not trainer.is_global_zero:
            return
        rows = self._rows_up_to(trainer.global_step)
        self.seconds_before = float(rows[-1]["seconds"]) if rows else 0.0
        self.bar = tqdm(
            total=self.total_steps,
            initial=trainer.global_step,
            desc="train",
            unit="step",
            dynamic_ncols=True,
            # A log file gets a line now and then, not a screen that is drawn anew.
            mininterval=0.2 if sys.stderr.isatty() else 20,
        )

    def _rows_up_to(self, step: int) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        if not rows:
            self.path.unlink()
            return []
        with self.path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return rows

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
        step = trainer.global_step
        if self.bar is not None:
            self.bar.update()
        if trainer.is_global_zero and (
            step == 1 or step % self.every == 0 or step == self.total_steps
        ):
            row = self._row(pl_module, step)
            self._write(row)
            if trainer.logger is not None:
                trainer.logger.log_metrics(row, step)
            if self.bar is not None:
                self.bar.set_postfix_str(self._summary(pl_module, row), refresh=False)

    @staticmethod
    def _summary(engine: Engine, row: dict[str, int | float]) -> str:
        assert engine.latest is not None
        terms = engine.latest[0].terms
        parts = " + ".join(f"{name} {row[name]:.3g}" for name in terms)
        # A single term is the loss itself.
        loss = f"loss {row['loss']:.4g}" + (f" = {parts}" if len(terms) > 1 else "")
        return (
            f"{loss}, {row['images_per_second']:.0f} images/s, "
            f"std {row['std_z']:.2f}, rank {row['rank_z']:.0f}"
        )

    @torch.no_grad()
    def _row(self, engine: Engine, step: int) -> dict[str, int | float]:
        assert engine.latest is not None
        outcome, e = engine.latest
        now = time.perf_counter()
        images = (step - self.last_step) * engine.batch_size
        row: dict[str, int | float] = {
            "step": step,
            "epoch": (step - 1) // engine.steps_per_epoch,
            "views": step * engine.batch_size * len(engine.policy),
            "seconds": self.seconds_before + now - self.started,
            "loss": float(outcome.loss),
            **{name: float(value) for name, value in outcome.terms.items()},
            "learning_rate": engine.trainer.optimizers[0].param_groups[0]["lr"],
            "images_per_second": images / max(now - self.last_time, 1e-9),
        }
        for name, embedding in (("h", e.h), ("z", e.z)):
            one_view = embedding[0].detach().float()
            row[f"std_{name}"] = float(normalized_std(one_view))
            row[f"rank_{name}"] = float(effective_rank(one_view))
        self.last_time, self.last_step = now, step
        return row

    def _write(self, row: dict[str, int | float]) -> None:
        is_new = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(row)
            writer.writerow(
                value if isinstance(value, int) else f"{value:.6g}" for value in row.values()
            )

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
