"""Numbers that a study takes of the batches while a run trains, in the run's meter.csv."""

from pathlib import Path
from typing import Any, final

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from noneg.experiments.study import Meter
from noneg.records.table import StepTable
from noneg.training.engine import Engine


@final
class MeterCallback(Callback):
    """A row at the first step, every so many steps, and at the last."""

    def __init__(self, directory: Path, meter: Meter, every: int) -> None:
        """Append to `directory`/meter.csv."""
        self.table = StepTable(directory / "meter.csv")
        self.meter = meter
        self.every = every

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop the rows that a killed run wrote after its last checkpoint."""
        self.table.forget_after(trainer.global_step)

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
        self.table.append({"step": step} | {name: float(value) for name, value in numbers.items()})
