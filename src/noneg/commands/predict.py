"""`noneg predict`: the class of each image, with its confidence."""

import csv
import sys
from pathlib import Path

from noneg.classifier.classifier import load_classifier
from noneg.errors import printable
from noneg.files import to_cell, whole_or_not_at_all
from noneg.images import Skipped


def run(
    *,
    classifier: Path,
    backbone: str | None,
    data: str,
    out: Path,
    batch_size: int,
    device: str,
    strict: bool,
) -> None:
    """Write a CSV table of name, label, confidence and the second guess.

    Raises:
        NonegError: there is no classifier, no image can be read, or the file cannot be written.
    """
    found = load_classifier(classifier, backbone=backbone)
    rows, skipped = 0, list[Skipped]()
    with (
        whole_or_not_at_all(out) as unfinished,
        unfinished.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("name", "label", "confidence", "second", "confidence_of_second"))
        for names, probabilities in found.predict(
            data,
            batch_size=batch_size,
            device=device,
            progress=True,
            strict=strict,
            skipped=skipped,
        ):
            order = (-probabilities).argsort(axis=1, kind="stable")
            for name, row, (first, second) in zip(names, probabilities, order[:, :2], strict=True):
                guesses = [
                    (to_cell(printable(found.classes[k])), f"{row[k]:.4f}") for k in (first, second)
                ]
                writer.writerow((to_cell(printable(name)), *guesses[0], *guesses[1]))
                rows += 1
    print(f"{rows:,} predictions written to {printable(str(out))}")
    for image in skipped:
        print(f"skipped {printable(image.name)}: {printable(image.reason)}", file=sys.stderr)
