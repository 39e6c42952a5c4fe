"""`noneg evaluate`: the meters of a run's encoder, and its scores where there are labels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import yaml
from torch import nn

from noneg.encoder import Encoder, EncoderInfo, load
from noneg.errors import NonegError
from noneg.evaluation.label_free import (
    Embed,
    Meters,
    embed_with,
    embed_with_backbone,
    format_meters,
    images_to_measure,
    measure_embeddings,
    meters_as_dict,
)
from noneg.evaluation.scores import (
    Score,
    compare,
    format_table,
    scores_as_dict,
    split_for_evaluation,
    untrained,
)
from noneg.files import save_json
from noneg.images import Images, find_source, load_images
from noneg.training.build import build_method
from noneg.training.checkpoints import load_weights
from noneg.training.config import load_config
from noneg.views import POLICIES


@final
@dataclass(frozen=True)
class Evaluation:
    """What `noneg evaluate` found.

    Attributes:
        scores: of the encoder, its random start and raw pixels; empty without labels.
        meters: label-free, of `h`, and of `z` where the run's checkpoint is at hand.
        random_meters: of the random start.
    """

    scores: tuple[Score, ...]
    meters: Meters
    random_meters: Meters


def evaluate_run(
    run: Path,
    data: str,
    *,
    bank: str | None = None,
    images: int = 10_000,
    out: Path | None = None,
) -> Evaluation:
    """Measure the encoder and its random start; score both and raw pixels where there are labels.

    The probes learn from `bank`; else from the run's own images, where these are other images than
    `data` and have all its classes; else from four fifths of `data`, and are tested on the fifth.

    Args:
        run: a run's or an encoder's directory.
        data: images to measure and test on: a folder, a file, or a name (its test part).
        bank: labeled images to learn from.
        images: use at most so many of each.
        out: also write scores and meters there, as JSON.

    Raises:
        NonegError: there is no encoder, or the images cannot be used.
    """
    encoder = load(run)
    settings = _settings(run)
    seed = int(settings.get("seed", 0))
    test = _load(data, "test", encoder.info)
    start = untrained(encoder.info, seed=seed)
    trained, random = _measure(run, encoder, start, test)
    print(format_meters(trained, random))
    measured = images_to_measure(len(test.pixels), encoder.info.size)
    meters = meters_as_dict(trained, random, measured)
    scores: list[Score] = []
    if test.labels is not None:
        learn, test = _parts(settings, data, bank, test, encoder.info, images, seed)
        scores = compare(encoder, start, learn, test, most=images, seed=seed)
        print(f"\n{format_table(scores)}")
    elif bank is not None:
        raise NonegError(
            f"--bank has labels to learn from, but the {test.description} has none to test on: put "
            "its images into one subfolder a class, or leave --bank out"
        )
    if out is not None:
        save_json(out, scores_as_dict(scores) | {"meters": meters})
    return Evaluation(tuple(scores), trained, random)


def _measure(run: Path, encoder: Encoder, start: Encoder, images: Images) -> tuple[Meters, Meters]:
    """The meters of the trained network and of its start; of `z` too where a checkpoint has it."""
    info = encoder.info
    checkpoint = run / "checkpoints" / "last.ckpt"
    modules: list[tuple[nn.Module, Embed]]
    if checkpoint.exists() and (run / "config.yaml").exists():
        config = load_config(run / "config.yaml")
        policy = config.policy(info.size)
        methods = [build_method(config), build_method(config)]
        load_weights(methods[0], checkpoint)
        modules = [(method, embed_with(method)) for method in methods]
    else:
        policy = POLICIES["gentle"](info.size)
        backbones = [encoder.module, start.module]
        modules = [(backbone, embed_with_backbone(backbone)) for backbone in backbones]
    trained, random = (
        measure_embeddings(
            module, embed, images, policy, size=info.size, mean=info.mean, std=info.std
        )
        for module, embed in modules
    )
    return trained, random


def _parts(
    settings: dict[str, Any],
    data: str,
    bank: str | None,
    test: Images,
    info: EncoderInfo,
    most: int,
    seed: int,
) -> tuple[Images, Images]:
    """Images to learn from and to test on."""
    own = settings.get("data")
    learn: Images | None = None
    if bank is not None:
        if _same_place(bank, data):
            raise NonegError(
                f"--bank and DATA are both {data}, so that each image would find itself; leave "
                f"--bank out to have DATA split."
            )
        learn = _load(bank, "train", info)
    elif isinstance(own, str) and not own.startswith("<") and not _same_place(own, data):
        learn = _own_images(own, test, info)
    if learn is None:
        learn, test = split_for_evaluation(test, seed=seed, most=most)
        print(f"\nlearning from four fifths of the {test.description}, testing on the fifth")
    else:
        print(f"\nlearning from the {learn.description}, testing on the {test.description}")
    return learn, test


def _settings(run: Path) -> dict[str, Any]:
    """The run's own configuration; nothing for an encoder alone."""
    try:
        settings = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _own_images(own: str, test: Images, info: EncoderInfo) -> Images | None:
    try:
        source = find_source(own, split="train")
    except NonegError:
        # The images of the training may have moved since.
        return None
    if source.classes is None or test.classes is None or set(test.classes) - set(source.classes):
        return None
    images = _load(own, "train", info)
    return None if images.labels is None else images


def _load(data: str, split: Any, info: EncoderInfo) -> Images:
    source = find_source(data, split=split)
    return load_images(source, channels=info.channels, size=info.stored_size)


def _same_place(one: str, other: str) -> bool:
    """Whether both are one folder or file; the parts of a named data set are not."""
    first, second = Path(one).expanduser(), Path(other).expanduser()
    return first.exists() and second.exists() and first.resolve() == second.resolve()


def run(*, run: Path, data: str, bank: str | None, images: int, out: Path | None) -> None:
    """See `evaluate_run`, which prints what it finds."""
    evaluate_run(run, data, bank=bank, images=images, out=out)
