"""Fit a method's weights: the engine under Lightning's Trainer, with all that watches it."""

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.strategies import ModelParallelStrategy

from noneg.encoder import EncoderInfo
from noneg.errors import NonegError
from noneg.images import Images
from noneg.methods.base import Method
from noneg.training.checkpoints import Checkpoints, StopRequest
from noneg.training.config import TrainConfig
from noneg.training.distributed import say, synchronize_statistics
from noneg.training.engine import Engine
from noneg.training.hardware import Hardware, has_convolutions, keep_freed_memory
from noneg.training.knn_monitor import NeighborMonitor
from noneg.training.metrics import Reporting
from noneg.training.watchdog import Watchdog


def fit(
    method: Method,
    images: Images,
    config: TrainConfig,
    directory: Path,
    info: EncoderInfo,
    hardware: Hardware,
    parts: tuple[Images, Images] | None = None,
    extra_callbacks: Sequence[Callback] = (),
) -> Watchdog:
    """Train the method's weights in place, from the last checkpoint where there is one.

    Returns:
        What watched the run, with its last verdict.

    Raises:
        NonegError: the loss or the weights are not finite, or the checkpoint cannot be read.
        KeyboardInterrupt: Ctrl-C or SIGTERM; a checkpoint was written first.
    """
    assert config.batch_size is not None
    assert config.size is not None
    if hardware.accelerator == "cpu":
        keep_freed_memory()
    # FSDP takes contiguous weights alone.
    if has_convolutions(method.backbone) and config.strategy != "fsdp":
        method.to(memory_format=torch.channels_last)
    engine = Engine(
        method,
        images.pixels,
        config,
        batch_size=config.batch_size,
        size=config.size,
        mean=info.mean,
        std=info.std,
    )
    stop = StopRequest()
    checkpoint = directory / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir(exist_ok=True)
    reporting = Reporting(directory, engine.total_steps, config.log_every, config.batch_size)
    watchdog = Watchdog(directory, config, reporting)
    callbacks: list[Callback] = [
        reporting,
        Checkpoints(checkpoint, config.checkpoint_every, engine.total_steps, stop),
        watchdog,
        *extra_callbacks,
    ]
    for name, chosen in (
        ("--knn_every", config.knn_every),
        ("--on_collapse rollback", config.on_collapse == "rollback"),
    ):
        if chosen and config.strategy == "fsdp":
            raise NonegError(f"{name} needs all weights on one process: not with --strategy fsdp")
    if config.knn_every and parts is not None:
        callbacks.append(
            NeighborMonitor(directory, config.knn_every, *parts, info, config.evaluation_images)
        )
    with stop.listening(), _quiet_lightning():
        trainer = _trainer(config, hardware, directory, callbacks)
        if config.batch_size % trainer.world_size:
            raise NonegError(
                f"--batch_size {config.batch_size} cannot be shared by {trainer.world_size} "
                "processes: make it a multiple"
            )
        if trainer.world_size > 1:
            share = config.batch_size // trainer.world_size
            say(f"{trainer.world_size} processes, {share} images of each batch on each")
            synchronize_statistics(method, on_gpus=hardware.accelerator in ("gpu", "cuda"))
        _fit(trainer, engine, checkpoint)
    if stop.received and trainer.global_step < engine.total_steps:
        raise KeyboardInterrupt(f"Go on with: noneg train --resume {directory}")
    return watchdog


def _trainer(
    config: TrainConfig, hardware: Hardware, directory: Path, callbacks: list[Callback]
) -> Trainer:
    """Lightning's Trainer, as the settings ask and torchrun, if it is there, says.

    Raises:
        NonegError: Lightning cannot do this here.
    """
    strategy: str | ModelParallelStrategy = config.strategy
    if strategy == "fsdp":
        # The engine shards the weights, with FSDP2; Lightning's own "fsdp" is the first version.
        strategy = ModelParallelStrategy(save_distributed_checkpoint=False)
    try:
        return Trainer(
            accelerator=hardware.accelerator,
            devices=_devices(config, hardware),
            num_nodes=_num_nodes(config),
            strategy=strategy,
            precision=hardware.precision,  # type: ignore[arg-type]
            max_epochs=config.epochs,
            logger=_logger(directory),
            callbacks=callbacks,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=directory,
        )
    except (ValueError, MisconfigurationException) as error:
        sentence = " ".join(str(error).split())
        raise NonegError(
            f"--accelerator {hardware.accelerator} --devices {config.devices} --num_nodes "
            f"{config.num_nodes} --strategy {config.strategy} cannot be had here: {sentence}"
        ) from error


def _fit(trainer: Trainer, engine: Engine, checkpoint: Path) -> None:
    if not checkpoint.exists():
        trainer.fit(engine)
        return
    try:
        trainer.fit(engine, ckpt_path=checkpoint, weights_only=True)
    except (RuntimeError, KeyError, EOFError, OSError) as error:
        if trainer.global_step > 0:
            raise
        sentence = " ".join(str(error).split())[:200]
        raise NonegError(
            f"{checkpoint} cannot be resumed from ({sentence}): delete it to start over"
        ) from error


def _devices(config: TrainConfig, hardware: Hardware) -> int | str:
    if config.devices == "auto" and "LOCAL_WORLD_SIZE" in os.environ:
        return int(os.environ["LOCAL_WORLD_SIZE"])
    # Lightning's "auto" on a CPU is one process, whose threads use all cores.
    if hardware.accelerator == "cpu" and config.devices == "auto":
        return 1
    return config.devices


def _num_nodes(config: TrainConfig) -> int:
    if config.num_nodes == 1 and "LOCAL_WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"]) // int(os.environ["LOCAL_WORLD_SIZE"])
    return config.num_nodes


def _logger(directory: Path) -> Any:
    if find_spec("tensorboard") is None:
        return False
    from pytorch_lightning.loggers import TensorBoardLogger

    return TensorBoardLogger(directory, name="", version="tensorboard")


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Lightning's own announcements repeat ours; its advice does not fit a loader like ours."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning")
            warnings.filterwarnings("ignore", module="lightning_fabric")
            # Nothing is done in place to what a part returns.
            warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
