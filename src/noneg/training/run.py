"""From images to a trained encoder with its scores, in one directory."""

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import nn

from noneg.diagnostics import Verdict
from noneg.encoder import Encoder, EncoderInfo
from noneg.errors import NonegError, printable
from noneg.evaluation.gain import gain_over, gain_without_labels
from noneg.evaluation.label_free import images_to_measure, meters_as_dict
from noneg.evaluation.scores import (
    Score,
    by_features,
    compare,
    format_table,
    scores_as_dict,
    untrained,
)
from noneg.files import LockedError, locked
from noneg.images import Images, PixelsOnDemand, Skipped, find_source, write_skipped
from noneg.images.find import Data
from noneg.methods.base import Method
from noneg.networks.norms import batch_norms
from noneg.networks.own import keep_module
from noneg.records.directory import RunDirectory
from noneg.records.table import numbers_of
from noneg.training.advice import advise_known_weights
from noneg.training.build import (
    arrange_memory,
    build_method,
    describe_encoder,
    draw_first_views,
    find_wasted_stride,
    measure_first_layer,
    measure_norms,
)
from noneg.training.causes import likely_causes
from noneg.training.checkpoints import load_weights, read_checkpoint, sigterm_as_interrupt
from noneg.training.config import TrainConfig, load_config, make_config, to_dict
from noneg.training.data import load_for_evaluation, load_for_training
from noneg.training.distributed import from_first_process, is_first_process, say
from noneg.training.faults import explained, resume_command
from noneg.training.final_meters import measure_encoder, measure_trained_and_untrained
from noneg.training.launch import explain_lost_processes, launch, use_precision
from noneg.training.loop import Observer, train_method
from noneg.training.origin import Origin, find_origin, load_origin
from noneg.training.pace import describe_length, describe_minutes, fix_steps
from noneg.training.plan import Plan, complete, plan_of, steps_of
from noneg.training.precision import PrecisionChoice, choose_precision
from noneg.training.provenance import describe_provenance, digest_of
from noneg.training.start import Start, find_start, load_start
from noneg.training.teacher import load_teacher, teach, teacher_of
from noneg.training.watchdog import Watchdog
from noneg.views import describe_sizes

Labels = np.ndarray | torch.Tensor | Sequence[int] | None

REPORTED_IMAGES = 2_000
"""The most images in the report at the end of a run; `noneg report` shows more."""


@final
@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        directory: the directory with all files of the run.
        config: all settings, completed by the recipe and the images.
        encoder: the trained encoder.
        scores: of the encoder, the untrained encoder, raw pixels and patches; empty without labels.
        verdict: the verdict of the label-free meters on the training.
    """

    directory: Path
    config: TrainConfig
    encoder: Encoder
    scores: tuple[Score, ...]
    verdict: Verdict

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from noneg.report.notebook import run_in_notebook

        return run_in_notebook(self.directory, self.verdict.state, self.verdict.sentence)


@final
@dataclass(frozen=True)
class _Given:
    """Data and options from the caller; None for data that the config names."""

    data: Data | None = None
    labels: Labels = None
    eval_data: Data | None = None
    eval_labels: Labels = None
    observers: Sequence[Observer] = ()
    progress: bool = False
    command: str | None = None


def train(
    data: Data | None = None,
    *,
    labels: Labels = None,
    eval_data: Data | None = None,
    eval_labels: Labels = None,
    backbone: str | nn.Module | None = None,
    resume_from: str | os.PathLike[str] | None = None,
    progress: bool = False,
    **settings: Any,
) -> Run:
    """Train an encoder on images without their labels, and score it.

    With several processes, every process returns the run, and the first one writes its files.

    Args:
        data: a folder, a .npy or .npz file, an array [N, H, W] or [N, H, W, C], a tensor
            [N, C, H, W], a map-style Dataset, "shapes", or a torchvision name; default: "shapes",
            or the data of the run in `continue_from`.
        labels: int [N], only used for scoring; by default from class folders or the data set.
        eval_data: labeled images to score on, in any of these forms.
        eval_labels: int [M], the labels of `eval_data`.
        backbone: a name, package.module:function, or a module of your own, float [B, C, S, S] ->
            [B, D] or [B, D, h, w], which is copied: training begins with its weights, and
            `noneg.load` needs a module of the same kind.
        resume_from: directory of a stopped run to finish. Settings must not be given; `data` and
            `backbone` must be the run's own if they were objects in memory.
        progress: show progress bars.
        settings: fields of TrainConfig: method="byol", epochs=200, options={"tau": 0.99} ...
            minutes=20 trains for about twenty minutes; start="timm:resnet18" begins with known
            weights; continue_from="runs/first" with the last weights of a finished run.

    Returns:
        The finished run, with its encoder.

    Raises:
        NonegError: the data or a setting cannot be used; one sentence says why.
        KeyboardInterrupt: Ctrl-C; the run can be resumed.
    """
    given = _Given(data, labels, eval_data, eval_labels, progress=progress)
    former = resume_from or settings.get("continue_from")
    if isinstance(backbone, nn.Module):
        backbone = keep_module(backbone, None if former is None else _backbone_in_memory(former))
    if backbone is not None and resume_from is None:
        settings["backbone"] = backbone
    options = settings.get("options")
    if isinstance(options, dict) and isinstance(teacher := options.get("teacher"), nn.Module):
        settings["options"] = {**options, "teacher": keep_module(teacher)}
    if resume_from is not None:
        if settings:
            raise NonegError("a resumed run keeps its settings: give no settings with resume_from")
        return _resume(RunDirectory(Path(resume_from)), given)
    if isinstance(eval_data, str | os.PathLike):
        settings["eval_data"] = os.fspath(eval_data)
    return _train(make_config(data, **settings), given)


def _backbone_in_memory(run: str | os.PathLike[str]) -> str | None:
    """The name that the module of an earlier run had."""
    name = (RunDirectory(Path(run)).read_config() or {}).get("backbone")
    return name if isinstance(name, str) and name.startswith("<") else None


def start(
    config: TrainConfig,
    data: Data | None = None,
    *,
    observers: Sequence[Observer] = (),
    progress: bool = False,
    command: str | None = None,
) -> Run:
    """Start a run in a new directory.

    Args:
        config: all settings.
        data: images in memory, used instead of those that the config names.
        observers: called at every step.
        progress: show progress bars.
        command: the command line, for run.json.
    """
    return _train(config, _Given(data, observers=observers, progress=progress, command=command))


def resume(directory: Path, *, observers: Sequence[Observer] = (), progress: bool = False) -> Run:
    """Finish a run from its last checkpoint; without a checkpoint it starts over."""
    return _resume(RunDirectory(directory), _Given(observers=observers, progress=progress))


def _resume(run: RunDirectory, given: _Given) -> Run:
    config = load_config(run.config_file)
    in_memory = config.data.startswith("<")
    if in_memory and (given.data is None or isinstance(given.data, str | os.PathLike)):
        raise NonegError(
            f"{run.path} was trained on {config.data} in memory: resume it from Python, with "
            "noneg.train(the same data, resume_from=...)"
        )
    return _train(config, given if in_memory else replace(given, data=None), run)


def _train(config: TrainConfig, given: _Given, resumed: RunDirectory | None = None) -> Run:
    """The whole run, from images to report, on every process."""
    with ExitStack() as ending, sigterm_as_interrupt():
        return _train_until(ending, config, given, resumed)


def _train_until(
    ending: ExitStack, config: TrainConfig, given: _Given, resumed: RunDirectory | None
) -> Run:
    """See `_train`; `ending` frees the directory, and explains faults of the machine."""
    if config.continue_from is not None and given.data is None and config.data.startswith("<"):
        raise NonegError(
            f"{config.continue_from} was trained on {config.data} in memory: continue it from "
            "Python, with noneg.train(the same data, continue_from=...)"
        )
    source = find_source(config.data if given.data is None else given.data, labels=given.labels)
    known = find_start(config, resumed)
    plan = complete(config, source, known) if resumed is None else plan_of(config)
    origin = find_origin(plan.config, resumed)
    if origin is not None and config.first_epoch is None:
        plan = replace(plan, config=replace(plan.config, first_epoch=origin.next_epoch))
    fabric = launch(plan)
    run = resumed or from_first_process(lambda: _new_directory(plan.config))
    ending.enter_context(explained(run))
    explain_lost_processes(run)
    from_first_process(lambda: _claim(run, ending, is_new=resumed is None))
    run.path.mkdir(parents=True, exist_ok=True)
    named = teacher_of(plan)
    teacher = None if named is None else load_teacher(named, plan, source)
    images = load_for_training(
        source,
        plan,
        run,
        teacher_size=0 if teacher is None else teacher.info.size,
        progress=given.progress,
    )
    earlier = run.read_provenance() if resumed else None
    digest = from_first_process(lambda: _same_images(run, images, earlier))
    begun = None if known is None else load_start(known, plan, images)
    method = build_method(plan, None if begun is None else begun.encoder.module)
    info = describe_encoder(method.backbone, plan, images, known)
    if origin is not None and not run.last_checkpoint.exists():
        load_origin(method, origin.run)
    else:
        if begun is None:
            measure_first_layer(method, images, plan, info)
        if config.norm == "frozen":
            measure_norms(method, images, plan, info)
    if teacher is not None:
        teach(method, teacher, images, run, progress=given.progress)
    arrange_memory(method, plan)
    # The kernels of a layer may differ between numbers of images.
    at_once = plan.config.chunk_size or plan.batch_size // fabric.world_size
    precision = from_first_process(
        lambda: _precision(plan, method, images, info, at_once, fabric.device, earlier)
    )
    plan = replace(plan, config=replace(plan.config, precision=precision.name))
    use_precision(fabric, precision.name)
    parts = load_for_evaluation(
        plan.config,
        images,
        config.eval_data if given.eval_data is None else given.eval_data,
        given.eval_labels,
    )
    _announce(plan, images, method, info, precision, run, origin, begun)
    if resumed is None and (advice := advise_known_weights(plan, source)) is not None:
        say(advice)
    if plan.config.minutes is not None:
        plan = fix_steps(fabric, method, images, plan, info, run, parts)
    steps = steps_of(plan, len(images.pixels))
    # Those of the runs that this one continues count as well.
    epochs = round((steps.before + steps.total) / steps.per_epoch, 2)
    epochs = int(epochs) if epochs.is_integer() else epochs
    info = replace(info, data=info.data | {"epochs": epochs})
    provenance = describe_provenance(
        images, digest, plan.hardware, precision, given.command, earlier, origin
    )
    if is_first_process():
        write_skipped(run.skipped_file, images.skipped)
        run.write_config(to_dict(plan.config))
        run.write_provenance(asdict(provenance))
        if begun is not None:
            begun.encoder.save(run.start)

    watchdog = train_method(
        fabric,
        method,
        images,
        plan,
        info,
        run,
        parts=parts,
        start_rows=[numbers_of(row) for row in origin.start_rows] if origin is not None else [],
        observers=given.observers,
        progress=given.progress,
    )

    if config.strategy == "fsdp":
        # Each process holds a share of the weights; the last checkpoint holds all of them.
        checkpoint = from_first_process(lambda: read_checkpoint(run.last_checkpoint))
        method = build_method(plan)
        load_weights(method, checkpoint)
    if is_first_process():
        seconds = round(watchdog.metrics.rows()[-1]["seconds"], 1)
        run.write_provenance(asdict(replace(provenance, seconds=seconds)))
    scores, verdict, keeps_start = from_first_process(
        lambda: _conclude(
            method, images, parts, plan, info, run, begun, teacher, watchdog, given.progress
        )
    )
    kept = begun.encoder if begun is not None and keeps_start else Encoder(method.backbone, info)
    encoder = Encoder(kept.module, replace(kept.info, scores=scores_as_dict(scores) or None))
    return Run(run.path, plan.config, encoder, tuple(scores), verdict)


def _new_directory(config: TrainConfig) -> RunDirectory:
    if config.out is not None:
        run = RunDirectory(Path(config.out))
        if run.exists():
            raise _holds_a_run(run)
        _make(run.path)
        return run
    name = Path(config.data).stem if not config.data.startswith("<") else "memory"
    stem = f"{name}-{config.method.rpartition('.')[2]}"
    _make(Path("runs"))
    for number in count(1):
        # Another run may be looking for its number at the same moment.
        with suppress(FileExistsError):
            run = RunDirectory(Path("runs") / f"{stem}-{number}")
            _make(run.path, must_be_new=True)
            break
    return run


def _make(directory: Path, *, must_be_new: bool = False) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=not must_be_new)
    except FileExistsError:
        if must_be_new:
            raise
        for each in (directory, *directory.parents):
            if each.is_symlink() and not each.exists():
                raise NonegError(
                    f"--out {directory} cannot be made: {each} is a link to {os.readlink(each)}, "
                    "which does not exist: make that directory, or mount its disk"
                ) from None
        raise NonegError(f"--out {directory} cannot be made: it is a file") from None
    except OSError as error:
        raise NonegError(f"--out {directory} cannot be made: {error.strerror}") from None


def _claim(run: RunDirectory, ending: ExitStack, *, is_new: bool) -> None:
    """Keep other runs out of the directory until `ending`.

    Raises:
        NonegError: another run is being trained in it, or was meanwhile.
    """
    if is_new:
        ending.callback(_remove_if_empty, run.path)
    try:
        ending.enter_context(locked(run.lock_file))
    except LockedError as error:
        raise NonegError(
            f"{error} is training in {run.path}: wait until it ends, or choose another --out"
        ) from None
    if is_new and run.exists():
        raise _holds_a_run(run)
    if (link := run.link_to_elsewhere()) is not None:
        raise NonegError(
            f"{printable(str(link))} is a link to a place outside the run's directory, where a run "
            "does not write: put the files themselves there"
        )


def _remove_if_empty(directory: Path) -> None:
    with suppress(OSError):
        directory.rmdir()


def _holds_a_run(run: RunDirectory) -> NonegError:
    return NonegError(
        f"{run.path} holds a run already: choose another --out, or continue with "
        f"{resume_command(run)}"
    )


def _same_images(run: RunDirectory, images: Images, earlier: dict[str, Any] | None) -> str:
    """The digest of the images; those of a resumed run should be the ones that it began with.

    Raises:
        NonegError: there are more or fewer, so that no later step would be the same.
    """
    digest = digest_of(images)
    recorded = (earlier or {}).get("data")
    if not isinstance(recorded, dict) or not run.last_checkpoint.exists():
        return digest
    before, now = recorded.get("images"), len(images.pixels)
    if before != now:
        raise NonegError(
            f"{run.path} was trained on {before} images, and the {images.description} has {now} "
            "now: put them back as they were, or begin a new run"
        )
    if recorded.get("digest", digest) != digest:
        say(
            f"warning: the {images.description} has other images than when {run.path} began, as "
            "many as before: the run goes on with these"
        )
    return digest


def _precision(
    plan: Plan,
    method: Method,
    images: Images,
    info: EncoderInfo,
    at_once: int,
    device: torch.device,
    earlier: dict[str, Any] | None,
) -> PrecisionChoice:
    """A resumed run keeps its precision, even if another one is faster now."""
    recorded = (earlier or {}).get("precision")
    if isinstance(recorded, dict):
        return PrecisionChoice(**recorded)
    return choose_precision(
        plan.config.precision,
        plan.hardware,
        method,
        lambda most: draw_first_views(images, plan, info, min(most, at_once)),
        device,
    )


def _announce(
    plan: Plan,
    images: Images,
    method: Method,
    info: EncoderInfo,
    precision: PrecisionChoice,
    run: RunDirectory,
    origin: Origin | None,
    begun: Start | None,
) -> None:
    """Print what the run will do, and advice on settings."""
    config = plan.config
    count, channels, side, _ = images.pixels.shape
    length = (
        describe_length(plan, count)
        if config.minutes is None
        else f"about {describe_minutes(config.minutes)}"
    )
    say(
        f"{config.method} on {images.description}: {count} images of {channels} x {side} x {side}, "
        f"views of {describe_sizes(plan.policy, plan.size)} px, {length} in batches of "
        f"{plan.batch_size}"
    )
    if origin is not None:
        say(f"it continues {origin.run}, which took {origin.steps:,} steps")
    if origin is not None and origin.images not in (None, count):
        say(f"warning: {origin.run} was trained on {origin.images} images, and there are {count}")
    if begun is not None:
        say(begun.describe())
    if images.skipped:
        _say_skipped(images.skipped, run)
    if isinstance(images.pixels, PixelsOnDemand):
        say("images are decoded again in every epoch: --cache memory or disk keeps them")
    say(
        f"{plan.backbone}, {info.features} features; {plan.hardware.description}: "
        f"{precision.reason}"
    )
    if (layer := find_wasted_stride(method.backbone, plan)) is not None:
        say(
            f"warning: the feature map is 1 x 1 before {layer}, so that its stride has no effect: "
            "give a larger --size, or a backbone with fewer strides"
        )
    if config.chunk_size and config.norm == "batch" and batch_norms(method):
        say(
            f"BatchNorm sees {config.chunk_size} images of each process at a time, so the gradient "
            "differs from the whole batch's: with --norm group or --norm frozen it is the same"
        )


def _conclude(
    method: Method,
    images: Images,
    parts: tuple[Images, Images] | None,
    plan: Plan,
    info: EncoderInfo,
    run: RunDirectory,
    begun: Start | None,
    teacher: Encoder | None,
    watchdog: Watchdog,
    progress: bool,
) -> tuple[list[Score], Verdict, bool]:
    """Save the encoder, then measure, judge and score it, and write the report.

    Returns:
        The scores, the verdict, and whether the start is the run's encoder after all.
    """
    config = plan.config
    if isinstance(images.pixels, PixelsOnDemand) and images.pixels.skipped:
        # With images on demand, these are only known after training.
        write_skipped(run.skipped_file, images.pixels.skipped)
        _say_skipped(images.pixels.skipped, run)
    encoder = Encoder(method.backbone, info)
    encoder.save(run.encoder)
    meters, guess = None, None
    measured = images_to_measure(len(images.pixels), plan.size)
    if config.evaluate:
        meters = measure_trained_and_untrained(method, info, images, plan, most=measured)
        of_start = None if begun is None else measure_encoder(begun.encoder, images, plan, measured)
        run.write_meters(meters_as_dict(*meters, measured, of_start))
        if of_start is not None:
            guess = gain_without_labels(meters[0]["h"], of_start["h"], measured)
    verdict = watchdog.conclude(meters, measured)
    scores: list[Score] = []
    outcome = None
    if guess is not None:
        outcome = guess.outcome
        run.write_verdict(
            (run.read_verdict() or {}) | {"against_start_without_labels": asdict(guess)}
        )
        print(f"\nstart    {guess.describe()}")
    if config.evaluate and parts is not None:
        initial = untrained(encoder, seed=config.seed)
        beside = {} if begun is None else {"start": begun.encoder}
        beside |= {} if teacher is None else {"teacher": teacher}
        scores = compare(
            encoder,
            initial,
            *parts,
            beside=beside,
            most=config.evaluation_images,
            seed=config.seed,
            progress=progress,
        )
        run.write_scores(scores_as_dict(scores))
        Encoder(method.backbone, replace(info, scores=scores_as_dict(scores))).save(run.encoder)
        print(f"\n{format_table(scores)}")
        if begun is not None:
            found = by_features(scores)
            gain = gain_over(found["trained"], found["start"])
            run.write_verdict((run.read_verdict() or {}) | {"against_start": asdict(gain)})
            print(f"\nstart    {gain.describe()}")
            # Labels know better.
            outcome = gain.outcome
    elif config.evaluate:
        say("no labels, so no scores")
    keeps_start = begun is not None and config.on_harm == "rollback" and outcome == "harmed"
    if begun is not None and keeps_start:
        info = replace(begun.encoder.info, scores=scores_as_dict(scores) or None)
        Encoder(begun.encoder.module, info).save(run.encoder)
        print("         the run's encoder is the start, because of --on-harm rollback")
    print(f"\nverdict  {verdict.state}: {verdict.sentence}")
    for cause in likely_causes(verdict.state, config):
        print(f"         likely: {cause}")
    print(f"run      {run.path}\nencoder  {run.encoder}")
    if config.report:
        # Bokeh and scikit-learn take a second to import.
        from noneg.report import write_report

        written = write_report([run.path], images=images, most=REPORTED_IMAGES, progress=progress)
        print(f"report   {written}")
    print(f'use it   noneg.load("{run.path}").embed(images)')
    if watchdog.stopped:
        raise NonegError(
            f"the run was stopped early because of --on-collapse {config.on_collapse}: "
            f"{verdict.state}; its results until then are in {run.path}"
        )
    return scores, verdict, keeps_start


def _say_skipped(skipped: Sequence[Skipped], run: RunDirectory) -> None:
    say(
        f"skipped {len(skipped)} files, the first {skipped[0].name} ({skipped[0].reason}): "
        f"all are listed in {run.skipped_file}"
    )
