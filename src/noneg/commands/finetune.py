"""`noneg finetune`: from labeled images to a classifier."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from noneg.classifier.fit import fit_classifier
from noneg.commands.found import labels_in
from noneg.encoder import load
from noneg.errors import NonegError, printable
from noneg.files import all_or_none, check_can_be_written
from noneg.images import Images, find_source, load_images


def run(
    *,
    run: str,
    backbone: str | None,
    data: str,
    labels: Path | None,
    epochs: int,
    seed: int,
    out: Path,
    device: str,
) -> None:
    """Fit a classifier, print how good it is on held-out images, and save it.

    The best one is in `out`, the one after the last epoch in `out`/last.

    Raises:
        NonegError: there is no encoder, there are no labels, or the classifier cannot be written.
    """
    if (out / "classifier.json").exists():
        raise NonegError(f"{printable(str(out))} holds a classifier already: choose another --out")
    if epochs < 0:
        raise NonegError(f"--epochs {epochs}: give 0 for a linear probe alone, or more")
    check_can_be_written(out, is_directory=True)
    encoder = load(run, backbone=backbone)
    source = find_source(data)
    images = load_images(
        source, channels=encoder.info.channels, size=encoder.info.stored_size, progress=True
    )
    if labels is not None:
        images = with_labels(images, labels)
    fitted = fit_classifier(encoder, images, epochs=epochs, seed=seed, device=device, progress=True)
    best, last = fitted.best, fitted.last
    facts = best.validation
    names = ", ".join(printable(each) for each in best.classes[:12])
    print(f"{len(best.classes)} classes: {names}{', ...' if len(best.classes) > 12 else ''}")
    print(
        f"on {facts['images']} held-out images {facts['accuracy']:.1%} are right, and "
        f"{facts['accuracy_of_classes']:.1%} on average over the classes"
    )
    if epochs:
        begun = facts.get("probe_accuracy", facts["accuracy"])
        kept = f"epoch {facts['epoch']}" if facts["epoch"] else "the linear probe"
        print(
            f"best is {kept} of {epochs} epochs; linear probe {begun:.1%}, last epoch "
            f"{last.validation['accuracy']:.1%}"
        )
    print(
        f"mean confidence {facts['mean_confidence']:.1%}, calibration error "
        f"{facts['calibration_error']:.1%} ({facts['calibration_error_before']:.1%} before)"
    )
    with all_or_none(out) as unfinished:
        best.save(unfinished)
        if epochs:
            last.save(unfinished / "last")
    print(f"written  {printable(str(out))}")
    print(f"use it   noneg predict {printable(str(out))} DATA --out FILE")


def with_labels(images: Images, file: Path) -> Images:
    """The images that a CSV file has a label for, with these labels.

    Raises:
        NonegError: the file has not the columns name and label, or names no image of these.
    """
    given, where = labels_in(file), printable(str(file))
    chosen = np.array([i for i, name in enumerate(images.names) if printable(name) in given])
    if not len(chosen):
        raise NonegError(
            f"{where} names none of the images of the {images.description}: give names as noneg "
            "embed writes them"
        )
    words = [given[printable(images.names[i])] for i in chosen]
    classes = tuple(sorted(set(words)))
    return replace(
        images,
        pixels=images.pixels[chosen],
        names=tuple(images.names[i] for i in chosen),
        labels=np.array([classes.index(each) for each in words], dtype=np.int64),
        classes=classes,
        factors=None,
    )
