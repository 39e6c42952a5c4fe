"""Numbers that a study takes of the batches while a run trains, in the run's meter.csv."""

import csv
from pathlib import Path
from typing import Any, final

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from noneg.studies.study import Meter
from noneg.training.engine import Engine


@final
class MeterCallback(Callback):
    """A row at the first step, every so many steps, and at the last."""

    def __init__(self, directory: Path, meter: Meter, every: int) -> None:
        """Append to `directory`/meter.csv; of a step that is repeated, the last row counts."""
        self.path = directory / "meter.csv"
        self.meter = meter
        self.every = every

    @torch.no_grad()
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Write a row where one is due."""
        assert isinstance(pl_module, Engine)
        step = trainer.global_step
        if step != 1 and step % self.every and step != pl_module.total_steps:
            return
        assert pl_module.latest is not None
        _, e = pl_module.latest
        numbers = self.meter(pl_module.method, e)
        is_new = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(["step", *numbers])
            writer.writerow([step, *(f"{float(value):.6g}" for value in numbers.values())])
