"""What `noneg list methods` shows of the benchmark of methods."""

import csv

from methods import measured
from noneg.commands.list import MEASURED
from noneg.methods import list_methods


def row(method: str, linear: float, **other: str) -> dict[str, str]:
    same = {"status": "done", "dataset": "cifar10", "name": "small", "minutes": "10"}
    same |= {"knn": "0.5", "date": "2026-11-28", "device": "a CPU"}
    return {**same, "method": method, "linear": str(linear), **other}


def test_the_mean_of_finished_runs_of_the_most_minutes_best_first() -> None:
    rows = [
        row("byol", 0.6),
        row("vicreg", 0.71),
        row("vicreg", 0.72, date="2026-11-30"),
        row("vicreg", 0.9, minutes="9"),
        row("vicreg", 0.9, dataset="fashion_mnist"),
        row("vicreg", 0.9, name="slower"),
        row("dino", 0.9, status="failed: why"),
    ]
    found = measured(rows, "cifar10")
    assert [(each["method"], each["linear"], each["runs"]) for each in found] == [
        ("vicreg", "71.5", "2"),
        ("byol", "60.0", "1"),
    ]
    assert found[0]["date"] == "2026-11-30"


def test_the_table_in_the_package_is_of_this_form() -> None:
    with MEASURED.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[0].keys() == measured([row("byol", 0.6)], "cifar10")[0].keys()
    assert {each["method"] for each in rows} <= set(list_methods())
    assert len({(each["dataset"], each["minutes"]) for each in rows}) == 1
    accuracies = [float(each["linear"]) for each in rows]
    assert accuracies == sorted(accuracies, reverse=True)
