"""`noneg evaluate`: the meters of a run's encoder, and its scores if there are labels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from noneg.encoder import Encoder, EncoderInfo, load
from noneg.errors import NonegError
from noneg.evaluation.gain import gain_over
from noneg.evaluation.label_free import (
    format_meters,
    images_to_measure,
    meters_as_dict,
)
from noneg.evaluation.scores import (
    Score,
    by_features,
    compare,
    format_table,
    scores_as_dict,
    split_for_evaluation,
    untrained,
)
from noneg.files import check_can_be_written, write_json
from noneg.images import Images, ImageSource, find_source, load_images
from noneg.methods.base import Method
from noneg.records.contents import Meters
from noneg.records.directory import RunDirectory
from noneg.training.build import build_method
from noneg.training.checkpoints import load_weights, read_checkpoint
from noneg.training.config import TrainConfig, load_config
from noneg.training.final_meters import measure_trained_and_untrained
from noneg.training.plan import Plan, plan_of


@final
@dataclass(frozen=True)
class Evaluation:
    """The results of `noneg evaluate`.

    Attributes:
        scores: of the encoder, the untrained one, raw pixels and patches; empty without labels.
        meters: label-free meters of `h`, and of `z` if the run has a checkpoint.
        untrained_meters: the same for the untrained network.
    """

    scores: tuple[Score, ...]
    meters: Meters
    untrained_meters: Meters


def evaluate_run(
    path: str | Path,
    data: str,
    *,
    backbone: str | None = None,
    bank: str | None = None,
    images: int = 10_000,
    out: Path | None = None,
    progress: bool = False,
) -> Evaluation:
    """Measure the trained and the untrained encoder; with labels, score them and baselines.

    The probes learn from `bank`. By default they learn from the run's own images, if these are not
    `data` and have all classes of `data`; otherwise from four fifths of `data`, with the last fifth
    for testing.

    Args:
        path: directory of a run or of an encoder; or another source that `noneg.load` takes.
        data: images to measure and test on: a folder, a file, or a name (its test part).
        backbone: the code of the run's network, if it is one's own.
        bank: labeled images to learn from.
        images: use at most this many of each.
        out: also write scores and meters there, as JSON.
        progress: show a progress bar.

    Raises:
        NonegError: there is no encoder, the images cannot be used, or `out` cannot be written.
    """
    if out is not None:
        check_can_be_written(out)
    encoder = load(path, backbone=backbone)
    run = RunDirectory(Path(path))
    config = load_config(run.config_file) if run.exists() else None
    plan = None if config is None else plan_of(config)
    seed = 0 if config is None else config.seed
    test = _load(data, "test", encoder.info)
    measured = images_to_measure(len(test.pixels), encoder.info.size)
    network = _trained_network(run, encoder, plan)
    meters = measure_trained_and_untrained(network, encoder.info, test, plan, most=measured)
    print(format_meters(*meters))
    scores: list[Score] = []
    if test.labels is not None:
        learn, test = _parts(config, data, bank, test, encoder.info, images, seed)
        initial = untrained(encoder, seed=seed)
        beside = {"start": load(run.start)} if run.start.is_dir() else {}
        scores = compare(
            encoder, initial, learn, test, beside=beside, most=images, seed=seed, progress=progress
        )
        print(f"\n{format_table(scores)}")
        if beside:
            found = by_features(scores)
            print(f"\nstart    {gain_over(found['trained'], found['start']).describe()}")
    elif bank is not None:
        raise NonegError(
            f"--bank has labels to learn from, but the {test.description} has none to test on: put "
            "its images into one subfolder per class, or leave --bank out"
        )
    if out is not None:
        write_json(out, scores_as_dict(scores) | {"meters": meters_as_dict(*meters, measured)})
    return Evaluation(tuple(scores), *meters)


def _trained_network(run: RunDirectory, encoder: Encoder, plan: Plan | None) -> Method | Encoder:
    """The whole method if there is a checkpoint, because the encoder has no projector."""
    if plan is None or not run.last_checkpoint.exists():
        return encoder
    method = build_method(plan)
    load_weights(method, read_checkpoint(run.last_checkpoint))
    return method


def _parts(
    config: TrainConfig | None,
    data: str,
    bank: str | None,
    test: Images,
    info: EncoderInfo,
    most: int,
    seed: int,
) -> tuple[Images, Images]:
    """Images to learn from and to test on."""
    own = "<" if config is None else config.data
    learn: Images | None = None
    if bank is not None:
        if _same_place(bank, data):
            raise NonegError(
                f"--bank and DATA are both {data}, so each image would find itself: leave --bank "
                "out to split DATA"
            )
        learn = _load(bank, "train", info)
    elif not own.startswith("<") and not _same_place(own, data):
        learn = _own_images(own, test, info)
    if learn is None:
        learn, test = split_for_evaluation(test, seed=seed, most=most)
        print(f"\nlearning from four fifths of the {test.description}, testing on the fifth")
    else:
        print(f"\nlearning from the {learn.description}, testing on the {test.description}")
    return learn, test


def _own_images(own: str, test: Images, info: EncoderInfo) -> Images | None:
    try:
        source = find_source(own, split="train")
    except NonegError:
        # The training images may have moved.
        return None
    if source.classes is None or test.classes is None or set(test.classes) - set(source.classes):
        return None
    images = _load(source, "train", info)
    return None if images.labels is None else images


def _load(data: str | ImageSource, split: Any, info: EncoderInfo) -> Images:
    source = find_source(data, split=split)
    return load_images(source, channels=info.channels, size=info.stored_size)


def _same_place(one: str, other: str) -> bool:
    """Whether both are the same folder or file; False for named data sets, which have splits."""
    first, second = Path(one).expanduser(), Path(other).expanduser()
    return first.exists() and second.exists() and first.resolve() == second.resolve()


def run(
    *,
    run: str,
    backbone: str | None,
    data: str,
    bank: str | None,
    images: int,
    out: Path | None,
) -> None:
    """See `evaluate_run`, which prints what it finds."""
    evaluate_run(run, data, backbone=backbone, bank=bank, images=images, out=out, progress=True)
