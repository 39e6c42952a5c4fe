"""A budget of seconds, and the number of training steps that fit into it.

A short run is timed first, then the number of steps is fixed. So a run is repeatable: its schedule
depends on a number of steps, not on the clock. The short run is not part of the budget.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import final

TIMED_STEPS, WARM_UP = 12, 2
"""The tenth step also writes noneg's row of metrics."""

TOLERANCE = 1.05
"""A run may take this much of its budget: the timing of a few steps is not exact."""


@final
@dataclass(frozen=True)
class Budget:
    """Seconds of training: CPU time on one core, wall time on several."""

    seconds: float
    cores: int = 1

    def clock(self) -> float:
        """Seconds since some moment. CPU time counts all threads of this process."""
        return time.process_time() if self.cores == 1 else time.perf_counter()


def steps_that_fit(
    seconds: float, started: float, after_steps: Sequence[float], finished: float
) -> int:
    """How many steps fit into the budget, from the clock of a short run.

    What the short run needed besides its steps, such as the choice of precision, is needed once.

    Args:
        seconds: the budget.
        started: the clock before the run.
        after_steps: the clock after each step, at least `WARM_UP + 1` of them.
        finished: the clock after the run.
    """
    timed = after_steps[WARM_UP - 1 :]
    step = (timed[-1] - timed[0]) / (len(timed) - 1)
    overhead = max(0.0, finished - started - len(after_steps) * step)
    return max(1, int((seconds - overhead) / step))


def train_within(budget: Budget, train: Callable[[int], Iterator[None]]) -> tuple[int, float]:
    """Time a few steps, then train from the beginning for as many steps as fit.

    Args:
        budget: for all that `train` does.
        train: starts over with fresh weights, and takes this many steps, one at a time.

    Returns:
        The number of steps, and the CPU seconds that they took.
    """
    started = budget.clock()
    after_steps = [budget.clock() for _ in train(TIMED_STEPS)]
    steps = steps_that_fit(budget.seconds, started, after_steps, budget.clock())
    started = time.process_time()
    for _ in train(steps):
        pass
    return steps, time.process_time() - started


def use_cores(cores: Sequence[int]) -> None:
    """Keep this process on these cores, where the system can do that."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
