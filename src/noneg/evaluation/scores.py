"""Score the trained and the untrained encoder, raw pixels and patches with the same probes."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int, Int64

from noneg.encoder import Encoder
from noneg.errors import NonegError
from noneg.evaluation.knn import knn_correct
from noneg.evaluation.linear import linear_probe_accuracy
from noneg.evaluation.patches import first_components, patch_features
from noneg.evaluation.pixels import LARGEST_PIXEL_SIDE, centered_pixels
from noneg.evaluation.splits import every_fifth
from noneg.evaluation.standardize import whitened
from noneg.images import Images, PixelsOnDemand
from noneg.networks.backbones import build_backbone
from noneg.networks.norms import copy_statistics
from noneg.networks.patch_whitening import copy_whitening
from noneg.progress import progress_bar

_Parts = tuple[Float32[np.ndarray, "bank width"], Float32[np.ndarray, "test width"]]


@final
@dataclass(frozen=True)
class Score:
    """The accuracies of the probes on one kind of features.

    Attributes:
        features: "trained" (the encoder), "start" (what its training began with), "teacher" (what
            it learned from), "untrained" (the same network with random weights), "pixels" or
            "patches".
        knn: accuracy of the nearest-neighbor probe on whitened features, in [0, 1].
        linear: accuracy of the linear probe, in [0, 1].
        dimensions: length of a feature vector.
        knn_raw: accuracy of the nearest-neighbor probe on the features as they are, in [0, 1].
        unreduced: only for patches: the score of all their features, before they were reduced to
            the length of the encoder's.
        correct: for the two probes, which test images they classified correctly; None if it is not
            known any more. It is not saved.
    """

    features: str
    knn: float
    linear: float
    dimensions: int
    knn_raw: float
    unreduced: "Score | None" = None
    correct: Bool[np.ndarray, "2 images"] | None = field(default=None, repr=False, compare=False)


def compare(
    encoder: Encoder,
    untrained_encoder: Encoder,
    bank: Images,
    test: Images,
    *,
    beside: Mapping[str, Encoder] | None = None,
    most: int = 10_000,
    seed: int = 0,
    device: str = "auto",
    progress: bool = False,
) -> list[Score]:
    """Score an encoder, the untrained encoder, raw pixels and patches on the same images.

    Raw pixels are the encoder's input, at 32 x 32 at most, minus the mean image of the bank. With
    the mean image, all cosines would be close to 1, and the baseline unfairly weak.

    Patches are learned from the bank at the same size, without its labels (see
    `noneg.evaluation.patches`). Their 1,600 features are reduced to the number of the encoder's
    features by principal components.

    Classes are matched by name if both parts have names, else by number.

    Args:
        encoder: the trained encoder.
        untrained_encoder: the same encoder before training; see `untrained`.
        bank: labeled images that the probes learn from.
        test: labeled images that the probes are tested on, none of them in the bank.
        beside: other encoders to score, by name, such as the "start" of the training.
        most: use a random choice of at most this many images of each part.
        seed: decides this choice, the held-out fifth of the linear probe, and the patches.
        device: for the encoders; "auto" is a GPU if there is one.
        progress: show a progress bar on stderr.

    Returns:
        Scores: "trained", those of `beside`, "untrained", "pixels", "patches".

    Raises:
        NonegError: images have no labels, or a probe cannot use them.
    """
    bank, test = sample_images(bank, most, seed=seed), sample_images(test, most, seed=seed)
    labels = matched_labels(bank, test)
    bank_pixels, test_pixels = np.asarray(bank.pixels), np.asarray(test.pixels)
    side = min(encoder.info.size, LARGEST_PIXEL_SIDE)

    width = encoder.info.features
    scores = []
    encoders = {"trained": encoder, **(beside or {}), "untrained": untrained_encoder}
    names = [*encoders, "pixels", "patches"]
    with progress_bar(
        total=2 * len(names) + 2, desc="scoring", unit="steps", shown=progress
    ) as bar:

        def score(name: str, features: _Parts) -> Score:
            bar.update()
            of_bank, of_test = features
            found = evaluate_features(name, of_bank, labels[0], of_test, labels[1], seed=seed)
            bar.update()
            return found

        for name in names:
            bar.set_description(f"scoring {name}")
            if name == "pixels":
                scores.append(score(name, centered_pixels(bank_pixels, test_pixels, side)))
            elif name == "patches":
                features = patch_features(bank_pixels, test_pixels, side, seed=seed)
                unreduced = score(name, features)
                reduced = score(name, first_components(*features, width))
                scores.append(replace(reduced, unreduced=unreduced))
            else:
                embedded = [
                    encoders[name].embed_pixels(pixels, device=device)
                    for pixels in (bank_pixels, test_pixels)
                ]
                scores.append(score(name, (embedded[0], embedded[1])))
    return scores


def evaluate_features(
    name: str,
    bank: Float32[np.ndarray, "bank width"],
    bank_labels: Int[np.ndarray, " bank"],
    test: Float32[np.ndarray, "test width"],
    test_labels: Int[np.ndarray, " test"],
    *,
    seed: int = 0,
) -> Score:
    """Run both probes, with their defaults; nearest neighbors on whitened and on raw features.

    Args:
        name: the kind of features, for the score.
        bank: features [N, D] that the probes learn from.
        bank_labels: classes [N].
        test: features [M, D] that they are tested on.
        test_labels: classes [M].
        seed: decides the held-out fifth of the linear probe.

    Raises:
        NonegError: a probe cannot use the features.
    """
    knn_raw = _knn(bank, bank_labels, test, test_labels)
    knn = _whitened_knn(bank, bank_labels, test, test_labels)
    linear = linear_probe_accuracy(bank, bank_labels, test, test_labels, seed=seed)
    return Score(
        name,
        float(knn.mean()),
        linear.accuracy,
        bank.shape[1],
        float(knn_raw.mean()),
        correct=np.stack([knn, linear.correct]),
    )


def whitened_knn_accuracy(
    bank: Float32[np.ndarray, "bank width"],
    bank_labels: Int[np.ndarray, " bank"],
    test: Float32[np.ndarray, "test width"],
    test_labels: Int[np.ndarray, " test"],
) -> float:
    """The nearest-neighbor score of every table: `knn_accuracy` of `whitened` features.

    Cosines of features as they are depend on their mean and on the scales of their directions.
    Kinds of features differ in these, so they would not be treated alike.

    Raises:
        NonegError: the probe cannot use the features.
    """
    return float(_whitened_knn(bank, bank_labels, test, test_labels).mean())


def _whitened_knn(
    bank: Float32[np.ndarray, "bank width"],
    bank_labels: Int[np.ndarray, " bank"],
    test: Float32[np.ndarray, "test width"],
    test_labels: Int[np.ndarray, " test"],
) -> Bool[np.ndarray, " test"]:
    bank, test = whitened(bank, test)
    return _knn(bank, bank_labels, test, test_labels)


def _knn(
    bank: Float32[np.ndarray, "bank width"],
    bank_labels: Int[np.ndarray, " bank"],
    test: Float32[np.ndarray, "test width"],
    test_labels: Int[np.ndarray, " test"],
) -> Bool[np.ndarray, " test"]:
    return knn_correct(
        torch.from_numpy(bank),
        torch.from_numpy(bank_labels),
        torch.from_numpy(test),
        torch.from_numpy(test_labels),
    ).numpy()


def untrained(encoder: Encoder, *, seed: int = 0) -> Encoder:
    """The encoder before training with this seed; torch's random state does not change.

    What was measured before the first step is copied from the trained encoder: the whitening of
    patches, and the statistics of frozen BatchNorm.
    """
    info = encoder.info
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = build_backbone(
            info.backbone, channels=info.channels, size=info.size, norm=info.norm
        )
    copy_whitening(encoder.module, backbone)
    if info.norm == "frozen":
        copy_statistics(encoder.module, backbone)
    return Encoder(backbone, replace(info, scores=None))


def split_for_evaluation(
    images: Images, *, seed: int = 0, most: int = 10_000
) -> tuple[Images, Images]:
    """Split images without a test set: four fifths to learn from, one to test on, stratified.

    Args:
        images: with labels.
        seed: decides the fifth.
        most: copy a random choice of at most this many images of each part into memory.

    Returns:
        (bank, test), which share no image.

    Raises:
        NonegError: there are no labels, or fewer than five images.
    """
    if images.labels is None or len(images.labels) < 5:
        raise NonegError(
            f"The {images.description} needs labels and at least 5 images to be split into "
            "images to learn from and to test on; put the images into one subfolder per class."
        )
    in_test = every_fifth(images.labels, seed=seed)
    parts = []
    for part in (np.flatnonzero(~in_test), np.flatnonzero(in_test)):
        parts.append(_selected(images, part[_choose(len(part), most, seed)]))
    return parts[0], parts[1]


def sample_images(images: Images, most: int, *, seed: int = 0) -> Images:
    """A random choice of at most `most` images, in order; if there are no more, all, not copied.

    Images on demand are decoded, and unreadable ones are left out.
    """
    count = len(images.pixels)
    if count <= most and isinstance(images.pixels, np.ndarray):
        return images
    return _selected(images, _choose(count, most, seed))


def by_features(scores: Sequence[Score]) -> dict[str, Score]:
    """The scores by the kind of features."""
    return {score.features: score for score in scores}


def format_table(scores: Sequence[Score]) -> str:
    """A table with a line per score, and accuracies in percent."""
    rows = [("features", "kNN", "linear", "dimensions")]
    rows += [
        (score.features, f"{score.knn:.1%}", f"{score.linear:.1%}", f"{score.dimensions:,}")
        for score in scores
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = []
    for row in rows:
        numbers = "  ".join(
            cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)
        )
        lines.append(f"{row[0].ljust(widths[0])}  {numbers}")
    return "\n".join(lines)


def scores_as_dict(scores: Sequence[Score]) -> dict[str, dict[str, Any]]:
    """{"trained": {"knn": 0.41, "linear": 0.52, "dimensions": 256, "knn_raw": 0.4}, ...}.

    Patches also have "unreduced": {"knn": ..., "linear": ..., "dimensions": 1600, "knn_raw": ...}.
    """
    return {score.features: _as_dict(score) for score in scores}


def _as_dict(score: Score) -> dict[str, Any]:
    row: dict[str, Any] = asdict(replace(score, unreduced=None, correct=None))
    del row["features"], row["unreduced"], row["correct"]
    if score.unreduced is not None:
        row["unreduced"] = _as_dict(score.unreduced)
    return row


def matched_labels(
    bank: Images, test: Images
) -> tuple[Int64[np.ndarray, " bank"], Int64[np.ndarray, " test"]]:
    """Labels [N] and [M], matched by class name if both have names, else unchanged.

    Raises:
        NonegError: one of them has no labels, or no class is in both.
    """
    for images in (bank, test):
        if images.labels is None:
            raise NonegError(
                f"The {images.description} has no labels to score with; put the images into one "
                "subfolder per class, or give labels."
            )
    assert bank.labels is not None
    assert test.labels is not None
    if bank.classes is None or test.classes is None or bank.classes == test.classes:
        return bank.labels, test.labels
    # A test folder without one of the classes numbers its classes differently.
    number = {name: index for index, name in enumerate(bank.classes)}
    if not number.keys() & set(test.classes):
        raise NonegError(
            f"The {test.description} has no class in common with the {bank.description} "
            f"({test.classes[0]} and others against {bank.classes[0]} and others); give the same "
            "names to the subfolders."
        )
    unseen = len(bank.classes)
    translation = np.array([number.get(name, unseen) for name in test.classes], dtype=np.int64)
    return bank.labels, translation[test.labels]


def _choose(count: int, most: int, seed: int) -> Int64[np.ndarray, " chosen"]:
    if count <= most:
        return np.arange(count)
    # Random, because folders list their images class by class.
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def _selected(images: Images, chosen: Int64[np.ndarray, " chosen"]) -> Images:
    if isinstance(images.pixels, PixelsOnDemand):
        pixels, chosen = images.pixels.read_readable(chosen)
    else:
        pixels = images.pixels[chosen]
    factors: Mapping[str, np.ndarray] | None = images.factors and {
        name: values[chosen] for name, values in images.factors.items()
    }
    return replace(
        images,
        pixels=pixels,
        names=tuple(images.names[index] for index in chosen),
        labels=None if images.labels is None else images.labels[chosen],
        factors=factors,
    )
