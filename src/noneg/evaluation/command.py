"""`noneg evaluate`: score a run's encoder on labelled images."""

from pathlib import Path
from typing import Any

import yaml

from noneg.encoder import EncoderInfo, load
from noneg.errors import NonegError
from noneg.evaluation.scores import (
    Score,
    compare,
    format_table,
    save_scores,
    split_for_evaluation,
    untrained,
)
from noneg.images import Images, find_source, load_images


def evaluate_run(
    run: Path,
    data: str,
    *,
    bank: str | None = None,
    images: int = 10_000,
    out: Path | None = None,
) -> list[Score]:
    """Score the encoder, its random start and raw pixels; print a table.

    The probes learn from `bank`; else from the run's own images, where these are other images than
    `data` and have all its classes; else from four fifths of `data`, and are tested on the fifth.

    Args:
        run: a run's or an encoder's directory.
        data: labelled images to test on: a folder, a file, or a name (its test part).
        bank: labelled images to learn from.
        images: use at most so many of each.
        out: also write the scores there, as JSON.

    Raises:
        NonegError: there is no encoder, or the images cannot be used.
    """
    encoder = load(run)
    settings = _settings(run)
    own = settings.get("data")
    test = _load(data, "test", encoder.info)
    learn: Images | None = None
    if bank is not None:
        if _same_place(bank, data):
            raise NonegError(
                f"--bank and DATA are both {data}, so that each image would find itself; leave "
                f"--bank out to have DATA split."
            )
        learn = _load(bank, "train", encoder.info)
    elif isinstance(own, str) and not own.startswith("<") and not _same_place(own, data):
        learn = _own_images(own, test, encoder.info)
    seed = int(settings.get("seed", 0))
    if learn is None:
        learn, test = split_for_evaluation(test, seed=seed, most=images)
        print(f"learning from four fifths of the {test.description}, testing on the fifth")
    else:
        print(f"learning from the {learn.description}, testing on the {test.description}")
    start = untrained(encoder.info, seed=seed)
    scores = compare(encoder, start, learn, test, most=images, seed=seed)
    print(format_table(scores))
    if out is not None:
        save_scores(out, scores)
    return scores


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
