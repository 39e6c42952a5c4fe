"""`noneg list`: the methods and backbones that can be chosen."""

import csv
from pathlib import Path

import noneg.methods
from noneg.errors import NonegError
from noneg.methods import describe_method, list_methods

MEASURED = Path(noneg.methods.__file__).with_name("measured.csv")
"""Accuracy of each method, by `python benchmarks/methods_table.py --publish`."""


def run(*, kind: str, pattern: str) -> None:
    """Print the "methods" with their kind, measured accuracy and a summary, or the "backbones".

    Args:
        kind: "methods" or "backbones".
        pattern: what the names of the backbones must match.

    Raises:
        NonegError: no backbone matches.
    """
    if kind == "methods":
        _print_methods()
        return
    # timm takes seconds to import.
    from noneg.networks.backbones import list_backbones

    names = list_backbones(pattern)
    if not names:
        raise NonegError(f"no backbone matches '{pattern}'; noneg list backbones shows all")
    print("\n".join(names))


def _print_methods() -> None:
    with MEASURED.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    scores = {
        row["method"]: f"{place:2} {row['linear']:>5} {row['knn']:>5}"
        for place, row in enumerate(rows, start=1)
    }
    print(f"{'method':14} {'kind and needs':40} {'# linear   kNN':14} what it is")
    for name in list_methods():
        method = describe_method(name)
        print(f"{name:14} {method.traits or ''!s:40} {scores.get(name, ''):14} {method.summary}")
    first = rows[0]
    runs = " or ".join(sorted({row["runs"] for row in rows}, key=int))
    print(
        f"\n#, linear, kNN: place and accuracy in percent on {first['dataset']}, in the time of "
        f"{first['vicreg_steps']} steps of VICReg,\nwith each method's small recipe and the "
        f"default network. Mean of {runs} runs, {max(row['date'] for row in rows)}.\n"
        "Probes learn from 10,000 labels, and are scored on images held out of the training set.\n"
        "How far to trust it: docs/methods-compared.md. No figure: not measured."
    )
