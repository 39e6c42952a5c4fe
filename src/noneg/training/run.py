"""From images to a trained encoder with its scores, in one directory."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from pytorch_lightning import Callback
from torch import nn
from torch.utils.data import Dataset

from noneg.diagnostics import Verdict
from noneg.encoder import Encoder, EncoderInfo
from noneg.errors import NonegError
from noneg.evaluation.label_free import (
    Meters,
    embed_with,
    images_to_measure,
    measure_embeddings,
    meters_as_dict,
)
from noneg.evaluation.scores import (
    Score,
    compare,
    format_table,
    scores_as_dict,
    untrained,
)
from noneg.files import save_json
from noneg.images import Images, PixelsOnDemand, Skipped, find_source, write_skipped
from noneg.methods.base import Method
from noneg.networks.norms import batch_norms
from noneg.training.build import (
    build_method,
    complete,
    feature_width,
    load_for_evaluation,
    load_for_training,
    measure_normalization,
    measure_norms,
)
from noneg.training.causes import likely_causes
from noneg.training.checkpoints import load_weights
from noneg.training.config import TrainConfig, load_config, make_config, save_config
from noneg.training.distributed import is_first_process, say
from noneg.training.hardware import (
    choose_hardware,
)
from noneg.training.loop import fit
from noneg.training.provenance import about_run
from noneg.training.watchdog import Watchdog

Data = str | os.PathLike[str] | np.ndarray | torch.Tensor | Dataset[Any]
# How the processes that Lightning starts for further devices learn of the first one's directory.
_SHARED_DIRECTORY = "NONEG_RUN_DIRECTORY"

REPORTED_IMAGES = 2_000
"""As many as the report of a run shows by itself; `noneg report` takes more."""

Labels = np.ndarray | torch.Tensor | Sequence[int] | None


@final
@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        directory: where everything about it is.
        config: every setting, with what the images and the recipe decided filled in.
        encoder: ready to use.
        scores: of the encoder, of its random start and of raw pixels; empty without labels.
        verdict: what the label-free meters say of the training.
    """

    directory: Path
    config: TrainConfig
    encoder: Encoder
    scores: tuple[Score, ...]
    verdict: Verdict


def train(
    data: Data = "shapes",
    *,
    labels: Labels = None,
    eval_data: Data | None = None,
    eval_labels: Labels = None,
    resume_from: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> Run:
    """Train an encoder on images, without their labels, and score it.

    Args:
        data: a folder, a .npy or .npz file, an array [N, H, W] or [N, H, W, C], a tensor
            [N, C, H, W], a map-style Dataset, "shapes", or a torchvision name.
        labels: int [N], for scoring alone; found by itself in class folders and data sets.
        eval_data: labeled images to score on, in any of these forms.
        eval_labels: int [M], theirs.
        resume_from: a run's directory, to go on with it; `data` must be what it began with where
            it was an object in memory, and no settings may be given.
        settings: fields of TrainConfig: method="byol", epochs=200, options={"tau": 0.99} ...

    Returns:
        The run, with its encoder.

    Raises:
        NonegError: the data or a setting cannot be used; one sentence says why.
        KeyboardInterrupt: Ctrl-C; the run can be resumed.
    """
    if resume_from is not None:
        if settings:
            raise NonegError("a resumed run keeps the settings it began with: give none")
        return resume(
            Path(resume_from), data, labels=labels, eval_data=eval_data, eval_labels=eval_labels
        )
    if isinstance(eval_data, str | os.PathLike):
        settings["eval_data"] = os.fspath(eval_data)
    config = make_config(data, **settings)
    return start(config, data, labels=labels, eval_data=eval_data, eval_labels=eval_labels)


def start(
    config: TrainConfig,
    data: Data | None = None,
    *,
    labels: Labels = None,
    eval_data: Data | None = None,
    eval_labels: Labels = None,
    extra_callbacks: Sequence[Callback] = (),
) -> Run:
    """Begin a run in a directory of its own."""
    directory = _new_directory(config)
    try:
        return _run(config, directory, data, labels, eval_data, eval_labels, extra_callbacks)
    except NonegError:
        # Nothing was made yet: leave no empty directory behind.
        with suppress(OSError):
            directory.rmdir()
        raise


def resume(
    directory: Path,
    data: Data = "shapes",
    *,
    labels: Labels = None,
    eval_data: Data | None = None,
    eval_labels: Labels = None,
    extra_callbacks: Sequence[Callback] = (),
) -> Run:
    """Go on with a run from its last checkpoint; one that never saved any starts over."""
    config = load_config(directory / "config.yaml")
    in_memory = config.data.startswith("<")
    if in_memory and isinstance(data, str | os.PathLike):
        raise NonegError(
            f"{directory} was trained on {config.data} in memory: resume it from Python, with "
            "noneg.train(the same data, resume_from=...)"
        )
    given = data if in_memory else None
    return _run(config, directory, given, labels, eval_data, eval_labels, extra_callbacks)


def _run(
    config: TrainConfig,
    directory: Path,
    data: Data | None,
    labels: Labels,
    eval_data: Data | None,
    eval_labels: Labels,
    extra_callbacks: Sequence[Callback] = (),
) -> Run:
    source = find_source(config.data if data is None else data, labels=labels)
    config = complete(config, source)
    images = load_for_training(source, config, directory)
    if is_first_process():
        write_skipped(directory / "skipped.csv", images.skipped)
        save_config(config, directory / "config.yaml")
    parts = load_for_evaluation(
        config, images, config.eval_data if eval_data is None else eval_data, eval_labels
    )
    method = build_method(config)
    info = describe_encoder(method.backbone, config, images)
    if config.norm == "frozen":
        measure_norms(method, images, config, info)
    hardware = choose_hardware(config)
    say(f"{config.method} on {images.description}: {_describe(images, config)}")
    if images.skipped:
        _say_skipped(images.skipped, directory)
    if isinstance(images.pixels, PixelsOnDemand):
        say("images are decoded again in every epoch: --cache memory or disk keeps them")
    say(f"{config.backbone}, {info.features} features; {hardware.reason}")
    if config.chunk_size and config.norm == "batch" and batch_norms(method):
        say(
            f"BatchNorm sees {config.chunk_size} images of each process at a time, so the gradient "
            "is not quite the whole batch's: --norm group or --norm frozen makes it so"
        )

    about = about_run(images, hardware, directory)
    if is_first_process():
        save_json(directory / "run.json", asdict(about))
    os.environ[_SHARED_DIRECTORY] = str(directory.absolute())
    try:
        watchdog = fit(method, images, config, directory, info, hardware, parts, extra_callbacks)
    finally:
        del os.environ[_SHARED_DIRECTORY]

    if not is_first_process():
        # One writer: the others have done their part of the training.
        sys.exit(0)
    seconds = round(watchdog.reporting.rows()[-1]["seconds"], 1)
    save_json(directory / "run.json", asdict(replace(about, seconds=seconds)))
    if isinstance(images.pixels, PixelsOnDemand) and images.pixels.skipped:
        # Only now is it known which they are.
        write_skipped(directory / "skipped.csv", images.pixels.skipped)
        _say_skipped(images.pixels.skipped, directory)
    if config.strategy == "fsdp":
        # This process holds a share of the weights; the last checkpoint holds them all.
        method = build_method(config)
        load_weights(method, directory / "checkpoints" / "last.ckpt")
    Encoder(method.backbone, info).save(directory / "encoder")
    return _judge_and_score(method, images, parts, config, info, directory, watchdog)


def _judge_and_score(
    method: Method,
    images: Images,
    parts: tuple[Images, Images] | None,
    config: TrainConfig,
    info: EncoderInfo,
    directory: Path,
    watchdog: Watchdog,
) -> Run:
    """What the meters say, what the labels say where there are any, and a page with both."""
    encoder = Encoder(method.backbone, info)
    assert config.size is not None
    measured = images_to_measure(len(images.pixels), config.size)
    meters = (
        _measure(method, images, config, info, directory, measured) if config.evaluate else None
    )
    verdict = watchdog.conclude(meters, measured)
    scores: list[Score] = []
    if config.evaluate and parts is not None:
        start = untrained(info, seed=config.seed)
        scores = compare(encoder, start, *parts, most=config.evaluation_images, seed=config.seed)
        save_json(directory / "scores.json", scores_as_dict(scores))
        encoder = Encoder(encoder.module, replace(info, scores=scores_as_dict(scores)))
        encoder.save(directory / "encoder")
        print(f"\n{format_table(scores)}")
    elif config.evaluate:
        say("no labels, so no scores")
    print(f"\nverdict  {verdict.state}: {verdict.sentence}")
    for cause in likely_causes(verdict.state, config):
        print(f"         likely: {cause}")
    print(f"run      {directory}\nencoder  {directory / 'encoder'}")
    if config.report:
        # Bokeh and scikit-learn take a second to import.
        from noneg.report import write_report

        print(f"report   {write_report([directory], images=images, most=REPORTED_IMAGES)}")
    print(f'use it   noneg.load("{directory}").embed(images)')
    if watchdog.stopped:
        raise NonegError(
            f"the run was stopped early, as --on_collapse {config.on_collapse} asks: "
            f"{verdict.state}; what it made until then is in {directory}"
        )
    return Run(directory, config, encoder, tuple(scores), verdict)


def _measure(
    method: Method,
    images: Images,
    config: TrainConfig,
    info: EncoderInfo,
    directory: Path,
    most: int,
) -> tuple[Meters, Meters]:
    """All meters, in evaluation mode, of the trained network and of its start, on `most` images."""
    assert config.size is not None
    start = build_method(config)
    if config.norm == "frozen":
        measure_norms(start, images, config, info)
    trained, random = (
        measure_embeddings(
            each,
            embed_with(each),
            images,
            config.policy(config.size),
            size=config.size,
            mean=info.mean,
            std=info.std,
            seed=config.seed,
            most=most,
        )
        for each in (method, start)
    )
    save_json(directory / "meters.json", meters_as_dict(trained, random, most))
    return trained, random


def describe_encoder(backbone: nn.Module, config: TrainConfig, images: Images) -> EncoderInfo:
    """What it takes to use the backbone once it is trained."""
    assert config.channels is not None
    assert config.size is not None
    on_demand = isinstance(images.pixels, PixelsOnDemand)
    mean, std = measure_normalization(images.pixels, most=1_000 if on_demand else 5_000)
    return EncoderInfo(
        backbone=config.backbone,
        channels=config.channels,
        size=config.size,
        stored_size=images.pixels.shape[-1],
        mean=mean,
        std=std,
        features=feature_width(backbone),
        method=config.method,
        norm=config.norm,
        data={
            "description": images.description,
            "images": len(images.pixels),
            "skipped": len(images.skipped),
            "epochs": config.epochs,
        },
    )


def _new_directory(config: TrainConfig) -> Path:
    launched = "LOCAL_RANK" in os.environ or "SLURM_PROCID" in os.environ
    chosen = config.out or (os.environ.get(_SHARED_DIRECTORY) if launched else None)
    if chosen is not None:
        directory = Path(chosen)
        if (directory / "config.yaml").exists() and not launched:
            raise NonegError(
                f"{directory} holds a run already: choose another --out, or go on with "
                f"noneg train --resume {directory}"
            )
    elif launched:
        raise NonegError("processes started side by side share a run's directory: give --out DIR")
    else:
        name = Path(config.data).stem if not config.data.startswith("<") else "memory"
        stem = f"{name}-{config.method.rpartition('.')[2]}"
        number = 1
        while (directory := Path("runs") / f"{stem}-{number}").exists():
            number += 1
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NonegError(f"--out {directory} cannot be made: {error.strerror}") from None
    return directory


def _describe(images: Images, config: TrainConfig) -> str:
    count, channels, side, _ = images.pixels.shape
    return (
        f"{count} images of {channels} x {side} x {side}, views of {config.size} px, "
        f"{config.epochs} epochs in batches of {config.batch_size}"
    )


def _say_skipped(skipped: Sequence[Skipped], directory: Path) -> None:
    say(
        f"skipped {len(skipped)} files, the first {skipped[0].name} ({skipped[0].reason}): "
        f"all of them in {directory / 'skipped.csv'}"
    )
