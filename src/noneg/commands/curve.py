"""`noneg curve`: accuracy against the number of labels."""

from pathlib import Path

import numpy as np

from noneg.classifier.curve import format_curve, label_curve
from noneg.classifier.fit import fine_tuned_accuracy
from noneg.commands.finetune import with_labels
from noneg.encoder import load
from noneg.errors import NonegError, printable
from noneg.evaluation.patches import first_components, patch_features
from noneg.evaluation.pixels import LARGEST_PIXEL_SIDE
from noneg.evaluation.scores import split_for_evaluation, untrained
from noneg.files import check_can_be_written, write_json
from noneg.images import find_source, load_images
from noneg.records.directory import RunDirectory


def run(
    *,
    run: str,
    backbone: str | None,
    data: str,
    labels: Path | None,
    test: str | None,
    seeds: int,
    epochs: int,
    out: Path | None,
) -> None:
    """Print the accuracy of linear probes on 1, 5, 10, 50 and all labels of each class.

    Raises:
        NonegError: there is no encoder, there are no labels of two classes, or a file cannot be
            written.
    """
    if seeds < 1:
        raise NonegError(f"--seeds {seeds}: give 1 or more")
    if epochs < 0:
        raise NonegError(f"--epochs {epochs}: give 0 or more")
    directory = RunDirectory(Path(run))
    if out is not None:
        check_can_be_written(out)
    if directory.exists():
        check_can_be_written(directory.curve_file)
    encoder = load(run, backbone=backbone)
    info, start = encoder.info, directory.start
    bank = load_images(
        find_source(data), channels=info.channels, size=info.stored_size, progress=True
    )
    if labels is not None:
        bank = with_labels(bank, labels)
    if bank.labels is None:
        raise NonegError(f"the {bank.description} has no labels: give class folders, or --labels")
    if test is None:
        bank, tested = split_for_evaluation(bank, seed=0, most=len(bank.pixels))
    else:
        tested = load_images(find_source(test), channels=info.channels, size=info.stored_size)
    if tested.labels is None or bank.labels is None:
        raise NonegError(f"the {tested.description} has no labels to test on: give class folders")
    encoders = {"trained": encoder}
    if start.is_dir():
        encoders["start"] = load(start)
    encoders["untrained"] = untrained(encoder)
    pixels = [np.asarray(part.pixels) for part in (bank, tested)]
    features = {
        name: [each.embed_pixels(part) for part in pixels] for name, each in encoders.items()
    }
    side = min(info.size, LARGEST_PIXEL_SIDE)
    learned = patch_features(pixels[0], pixels[1], side)
    features["patches"] = list(first_components(*learned, info.features))

    def fine_tuned(chosen: np.ndarray, targets: np.ndarray, wanted: np.ndarray, seed: int) -> float:
        train = pixels[0][chosen], targets
        return fine_tuned_accuracy(encoder, train, (pixels[1], wanted), epochs=epochs, seed=seed)

    points = label_curve(
        {name: parts[0] for name, parts in features.items()},
        bank.labels,
        {name: parts[1] for name, parts in features.items()},
        tested.labels,
        seeds=seeds,
        others={"fine-tuned": fine_tuned} if epochs else {},
    )
    print(
        f"classifiers with labels of {bank.description}, tested on {len(tested.labels):,} other "
        f"images; mean of {seeds} choices, with a 95 % interval\n\n{format_curve(points)}"
    )
    fields = {"points": [vars(point) for point in points]}
    if directory.exists():
        directory.write_curve(fields)
        print(f"written  {printable(str(directory.curve_file))}, which noneg report {run} shows")
    if out is not None:
        write_json(out, fields)
        print(f"written  {printable(str(out))}")
