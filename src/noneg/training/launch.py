"""Start the processes of a run, with Lightning Fabric."""

import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.precision import MixedPrecision, Precision
from lightning_fabric.strategies.launchers import subprocess_script
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from noneg.errors import NonegError
from noneg.records.directory import RunDirectory
from noneg.training.distributed import shard
from noneg.training.faults import lost_process
from noneg.training.plan import Plan

OWN_WORDS: Final = 20
"""Seconds in which a process may notice by itself that another one has ended."""


def launch(plan: Plan) -> Fabric:
    """Start all processes of a run; each process returns from here.

    Raises:
        NonegError: Lightning refuses these settings here, or the processes cannot share a batch.
    """
    fabric = _make_fabric(plan)
    config, processes = plan.config, fabric.world_size
    if plan.batch_size % processes:
        raise NonegError(
            f"--batch-size {plan.batch_size} cannot be split over {processes} processes: give a "
            f"multiple of {processes}"
        )
    needs_all_weights = {
        "--knn-every": bool(config.knn_every),
        "--on-collapse rollback": config.on_collapse == "rollback",
    }
    for flag, is_set in needs_all_weights.items():
        if is_set and config.strategy == "fsdp":
            raise NonegError(
                f"{flag} needs all weights on one process: leave it out, or give another --strategy"
            )
    with quiet_lightning():
        try:
            fabric.launch()
        except (ValueError, TypeError, RuntimeError) as error:
            raise _refused(plan, error) from error
    _tell_how_many_share_the_machine(fabric, plan.hardware.num_nodes)
    return fabric


def _tell_how_many_share_the_machine(fabric: Fabric, machines: int) -> None:
    """As torchrun does, so that the threads that read images share the cores."""
    environment = getattr(fabric.strategy, "cluster_environment", None)
    if fabric.world_size > 1 and isinstance(environment, LightningEnvironment):
        os.environ.setdefault("LOCAL_WORLD_SIZE", str(fabric.world_size // machines))


def explain_lost_processes(run: RunDirectory) -> None:
    """End this process with a sentence, too, if another one ends that Lightning started from it.

    Lightning would kill it after five seconds, without a word of noneg's. While it measures and
    scores it sends nothing, so it does not notice.
    """

    def end(self: Any) -> None:
        time.sleep(OWN_WORDS)
        print(f"noneg: {lost_process(run)}", file=sys.stderr, flush=True)
        for each in self._child_processes:
            each.kill()
        os._exit(2)

    # Lightning has no public way to this. Without the name, a run ends as Lightning ends it.
    observer: Any = getattr(subprocess_script, "_ChildProcessObserver", None)
    if observer is not None:
        observer._terminate_all = end


def _make_fabric(plan: Plan) -> Fabric:
    hardware = plan.hardware
    strategy: str | ModelParallelStrategy = hardware.strategy
    if strategy == "fsdp":
        # Lightning's "fsdp" is the first version of FSDP, which hooks into `forward` only.
        strategy = ModelParallelStrategy(parallelize_fn=_shard, save_distributed_checkpoint=False)
    asked = plan.config.precision
    try:
        with quiet_lightning():
            return Fabric(
                accelerator=hardware.accelerator,
                devices=hardware.devices,
                num_nodes=hardware.num_nodes,
                strategy=strategy,
                precision="32-true" if asked == "auto" else asked,  # type: ignore[arg-type]
            )
    except (ValueError, TypeError, RuntimeError, MisconfigurationException) as error:
        raise _refused(plan, error) from error


def _shard(module: nn.Module, _mesh: object) -> nn.Module:
    shard(module.get_submodule("method"))
    return module


def _refused(plan: Plan, error: Exception) -> NonegError:
    hardware, sentence = plan.hardware, " ".join(str(error).split())
    return NonegError(
        f"--accelerator {hardware.accelerator} --devices {hardware.devices} --num-nodes "
        f"{hardware.num_nodes} --strategy {hardware.strategy} --precision {plan.config.precision} "
        f"cannot be used here: {sentence}"
    )


def use_precision(fabric: Fabric, name: str) -> None:
    """Compute in this precision from now on; `Fabric` already does so if the user chose it."""
    strategy = fabric.strategy
    if name == "32-true":
        strategy.precision = Precision()
    elif name in ("16-mixed", "bf16-mixed") and not isinstance(strategy.precision, MixedPrecision):
        strategy.precision = MixedPrecision(name, device=fabric.device.type)  # type: ignore[arg-type]
    # `fabric.setup_module` converts weights by this one, which "bf16-true" would have set.
    fabric._precision = strategy.precision


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Hide Lightning's messages, which repeat ours, and its warnings that do not apply here."""
    logger = logging.getLogger("lightning_fabric")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning_fabric")
            # Outputs of the sharded parts are never changed in place.
            warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
            yield
    finally:
        logger.setLevel(level)
