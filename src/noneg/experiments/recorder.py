"""Write a study's batch measure while a run trains."""

from typing import final

import torch

from noneg.experiments.study import BatchMeasure
from noneg.methods.base import Embeddings, Method
from noneg.records.table import StepTable
from noneg.training.loop import Observer


@final
class BatchRecorder(Observer):
    """Writes one row for the first step, for every `every` steps, and for the last step."""

    def __init__(self, table: StepTable, measure: BatchMeasure, every: int) -> None:
        """Append what `measure` returns to `table`."""
        self.table = table
        self.measure = measure
        self.every = every
        self._unwritten: tuple[int, Method, Embeddings] | None = None

    def begin(self, step: int) -> None:
        """Training starts or resumes after `step` steps: drop the rows of later ones."""
        self.table.forget_after(step)
        self._unwritten = None

    def observe(self, step: int, epoch: int, method: Method, embeddings: Embeddings) -> None:
        """Write a row if one is due; `step` counts from 1."""
        self._unwritten = step, method, embeddings
        if step == 1 or step % self.every == 0:
            self.finish()

    @torch.no_grad()
    def finish(self) -> None:
        """Write the latest step if it has no row yet; call it when training is done."""
        if self._unwritten is None:
            return
        step, method, embeddings = self._unwritten
        numbers = self.measure(method, embeddings)
        self.table.append({"step": step} | {name: float(value) for name, value in numbers.items()})
        self._unwritten = None
