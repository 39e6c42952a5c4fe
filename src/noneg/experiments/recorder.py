"""Write a study's batch measure while a run trains."""

from typing import final

from noneg.experiments.study import BatchMeasure
from noneg.methods.base import Embeddings, Method
from noneg.records.table import StepTable
from noneg.training.loop import Observer


@final
class BatchRecorder(Observer):
    """One row for the first step, for every `every` steps, and for the last step."""

    def __init__(self, table: StepTable, measure: BatchMeasure, every: int) -> None:
        """Append what `measure` returns to `table`."""
        self.table = table
        self.measure = measure
        self.every = every
        self.total_steps = 0

    def begin(self, step: int, total_steps: int) -> None:
        """Drop the rows that a killed run wrote after its last checkpoint."""
        self.table.forget_after(step)
        self.total_steps = total_steps

    def observe(self, step: int, epoch: int, method: Method, embeddings: Embeddings) -> None:
        """Write a row if one is due."""
        if step == 1 or step % self.every == 0 or step == self.total_steps:
            numbers = self.measure(method, embeddings)
            self.table.append(
                {"step": step, **{name: float(value) for name, value in numbers.items()}}
            )
