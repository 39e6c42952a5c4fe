"""`--minutes`: how many steps fit, measured before the first step, and fixed from then on."""

import copy
import shutil
import statistics
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, final

import torch
from lightning_fabric import Fabric

from noneg.encoder import EncoderInfo
from noneg.images import Images
from noneg.methods.base import Method
from noneg.records.directory import RunDirectory
from noneg.training.batches import batches
from noneg.training.distributed import (
    from_first_process,
    is_first_process,
    on_any_process,
    say,
)
from noneg.training.knn_monitor import KNNMonitor
from noneg.training.launch import quiet_lightning
from noneg.training.loop import State
from noneg.training.metrics import Metrics
from noneg.training.plan import Plan, steps_of
from noneg.training.watchdog import Watchdog

# Steps are timed for a twentieth of the run, within these seconds, and there are at least four.
_SHARE: Final = 1 / 20
_FEWEST_SECONDS, _MOST_SECONDS = 2.0, 30.0
_FEWEST_STEPS, _MOST_STEPS = 4, 10_000

# The first steps are slower: memory is allocated, and libraries choose their kernels.
_WARM_UP: Final = 1 / 4
_STRETCHES: Final = 5


@final
@dataclass(frozen=True)
class Pace:
    """What a run takes, in seconds.

    Args:
        step: of one step.
        once: of what happens once in a run, however long it is.
        recurring: (steps, seconds) of what happens every so many steps.
    """

    step: float
    once: float = 0.0
    recurring: tuple[tuple[int, float], ...] = ()

    def seconds(self, steps: int) -> float:
        """The duration of a run of this many steps."""
        recurring = sum(steps // every * seconds for every, seconds in self.recurring)
        return self.once + steps * self.step + recurring

    def steps_within(self, seconds: float) -> int:
        """The largest number of steps that take no longer than this; at least one."""
        possible = range(1, int(seconds / self.step) + 2)
        return max(1, bisect_right(possible, seconds, key=self.seconds))


def typical(durations: Sequence[float]) -> float:
    """The median of the mean durations of five stretches, without the first quarter of the steps.

    One interruption by another program does not count; a step that is slow every so often does.
    """
    settled = durations[max(1, round(_WARM_UP * len(durations))) :]
    count = min(_STRETCHES, len(settled))
    bounds = [position * len(settled) // count for position in range(count + 1)]
    return statistics.median(
        statistics.fmean(settled[start:end]) for start, end in pairwise(bounds)
    )


def fix_steps(
    fabric: Fabric,
    method: Method,
    images: Images,
    plan: Plan,
    info: EncoderInfo,
    run: RunDirectory,
    parts: tuple[Images, Images] | None,
) -> Plan:
    """Time some steps of the run, and replace `minutes` by the number of steps that fit.

    The steps are the run's own, on a copy of the method, with its images, views and precision, on
    all processes: each step ends when the slowest process has sent its part. Rows of metrics,
    checkpoints and scores are timed as well, and counted as often as they will occur. Nothing else
    changes: a run that is given this number of steps ends with the same weights.

    Args:
        fabric: launched, with all processes.
        method: the method before its first step.
        images: the images to train on.
        plan: the plan of the run, with `minutes`.
        info: describes the encoder.
        run: the directory of the run.
        parts: labeled images for `--knn-every`.

    Returns:
        The plan with `steps`, the same on all processes.
    """
    minutes = plan.config.minutes
    assert minutes is not None
    seconds = 60 * minutes
    scratch = RunDirectory(run.timing_directory)
    generators = [fabric.device] if fabric.device.type == "cuda" else []
    started = time.perf_counter()
    try:
        if is_first_process():
            scratch.last_checkpoint.parent.mkdir(parents=True, exist_ok=True)
        with torch.random.fork_rng(devices=generators), quiet_lightning():
            pace = _measure(
                fabric, copy.deepcopy(method), images, plan, info, scratch, parts, seconds
            )
    finally:
        if is_first_process():
            shutil.rmtree(scratch.path, ignore_errors=True)
    steps = from_first_process(lambda: pace.steps_within(seconds))
    plan = replace(plan, config=replace(plan.config, minutes=None, steps=steps))
    say(
        f"one step takes {pace.step:.3g} s (timed for {time.perf_counter() - started:.0f} s): "
        f"about {describe_length(plan, len(images.pixels))} in "
        f"{describe_minutes(minutes)}"
    )
    return plan


def describe_length(plan: Plan, images: int) -> str:
    """The length of a run for people: "24 epochs", or "1,234 steps (12.3 epochs)"."""
    steps = steps_of(plan, images)
    if plan.config.steps is None:
        return f"{plan.config.epochs} epoch{'' if plan.config.epochs == 1 else 's'}"
    return f"{steps.total:,} step{'' if steps.total == 1 else 's'} ({steps.epochs:.3g} epochs)"


def describe_minutes(minutes: float) -> str:
    """For people: "1 minute", "2.5 minutes"."""
    return f"{minutes:g} minute{'' if minutes == 1 else 's'}"


def _measure(
    fabric: Fabric,
    method: Method,
    images: Images,
    plan: Plan,
    info: EncoderInfo,
    scratch: RunDirectory,
    parts: tuple[Images, Images] | None,
    seconds: float,
) -> Pace:
    """Take steps with the method, which changes, and write files into the scratch directory."""
    config = replace(plan.config, minutes=None, steps=_MOST_STEPS, on_collapse="warn")
    plan = replace(plan, config=config)
    steps = steps_of(plan, len(images.pixels))
    metrics = Metrics(scratch, plan, steps)
    metrics.metering.set_precision(config.precision)
    watchdog = Watchdog(scratch, config, metrics, _say_nothing)
    state = State(fabric, method, plan, info, metrics, watchdog)
    # At learning rates of 0 no choice of settings diverges.
    state.rate_factor = 0.0
    allowed = min(max(_SHARE * seconds, _FEWEST_SECONDS), _MOST_SECONDS)
    ends = [time.perf_counter()]
    for number, pixels, index in batches(
        images.pixels, plan.batch_size, config.seed,
        range(steps.before, steps.before + steps.total),
        rank=fabric.global_rank, ranks=fabric.world_size,
    ):  # fmt: skip
        loss, embeddings = state.take_step(number, pixels, index)
        if is_first_process():
            metrics.metering.see(embeddings)
        ends.append(time.perf_counter())
        is_enough = len(ends) > _FEWEST_STEPS and ends[-1] - ends[0] >= allowed
        # The loop asks all processes once per step as well, whether to stop.
        if on_any_process(is_enough, fabric.device):
            break

    save = _seconds(lambda: state.save(scratch.last_checkpoint, len(ends) - 1))
    step = typical([end - start for start, end in pairwise(ends)])
    if not is_first_process():
        return Pace(step)

    def write_row(number: int) -> None:
        metrics.write_row(number, loss, 0.0, method, embeddings)
        watchdog.judge(number)

    # The first step of a run has a row with spectra, and the second one has none.
    with_spectra, quick = (_seconds(lambda each=each: write_row(each)) for each in (1, 2))  # type: ignore[misc]
    recurring = [
        (config.log_every, quick),
        (metrics.spectra_every, max(0.0, with_spectra - quick)),
        (config.checkpoint_every, save),
    ]
    every = config.knn_every * steps.per_epoch
    if parts and 0 < every * step <= seconds:
        monitor = KNNMonitor(scratch, parts, info, config.evaluation_images)
        score = _seconds(lambda: monitor.measure(1, 1, 1, method, fabric.device), times=1)
        recurring.append((every, score))
    return Pace(step, 2 * with_spectra + save, tuple(recurring))


def _seconds(action: Callable[[], None], times: int = 2) -> float:
    """The shortest of a few durations: the first one includes what happens only once."""
    durations = []
    for _ in range(times):
        started = time.perf_counter()
        action()
        durations.append(time.perf_counter() - started)
    return min(durations)


def _say_nothing(_sentence: str) -> None:
    """Verdicts on steps that change nothing are of no interest."""
