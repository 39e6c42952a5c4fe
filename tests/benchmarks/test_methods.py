"""What `noneg list methods` shows of the benchmark of methods, and how many steps each may take."""

import csv
from pathlib import Path
from threading import Semaphore, Thread
from typing import Any

import pytest

from methods_pace import COLUMNS, Turns, pace_of
from methods_table import PAGE, TABLE, against, measured, summarize, with_tables
from noneg.commands.list import MEASURED
from speedrun import read_rows

REPOSITORY = Path(__file__).parents[2]


def row(method: str, linear: float, **other: str) -> dict[str, str]:
    same = {"status": "done", "dataset": "cifar10", "name": "small", "vicreg_steps": "400"}
    same |= {"knn": "0.5", "date": "2026-11-28", "device": "a CPU"}
    return {**same, "method": method, "linear": str(linear), **other}


def test_the_mean_of_finished_runs_of_the_most_steps_best_first() -> None:
    rows = [
        row("byol", 0.6),
        row("vicreg", 0.71),
        row("vicreg", 0.72, date="2026-11-30"),
        row("vicreg", 0.9, vicreg_steps="90"),
        row("vicreg", 0.9, dataset="fashion_mnist"),
        row("vicreg", 0.9, name="slower"),
        row("dino", 0.9, status="failed: why"),
        row("untrained", 0.9),
    ]
    found = measured(rows, "cifar10")
    assert [(each["method"], each["linear"], each["runs"]) for each in found] == [
        ("vicreg", "71.5", "2"),
        ("byol", "60.0", "1"),
    ]
    assert found[0]["date"] == "2026-11-30"


def test_a_method_has_one_row_with_all_data_sets() -> None:
    costs = {"images_per_s": "120.4", "peak_mib": "1300", "loss_share": "", "effective_rank": "9.6"}
    rows = [
        row("byol", 0.6, verdict="healthy", **costs),
        row("byol", 0.7, verdict="healthy", **costs | {"images_per_s": "130.4"}),
        row("vicreg", 0.66, verdict="healthy", **costs),
        row("byol", 0.9, dataset="fashion_mnist", verdict="collapsed", **costs),
        row("untrained", 0.5, verdict="", **dict.fromkeys(costs, "")),
        row("byol", 0.1, name="slower", verdict="", **costs),
    ]
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in summarize(rows).splitlines()
    ]
    assert lines[0][2:8] == [
        f"{dataset}: {column}"
        for dataset in ("cifar10", "fashion_mnist")
        for column in ("n", "kNN", "linear")
    ]
    assert [line[0] for line in lines[2:]] == ["`vicreg`", "`byol`", "`untrained`"]
    assert lines[3][1:8] == ["online-target", "2", "50.0 ± 0.0", "65.0 ± 7.1", "1", "50.0", "90.0"]
    assert lines[3][8:] == [
        "125",
        "1,300 MiB",
        "",
        "10",
        "cifar10: healthy 2; fashion_mnist: collapsed 1",
    ]
    assert lines[2][2:8] == ["1", "50.0", "66.0", "0", "", ""]
    assert lines[2][-1] == "healthy"
    assert lines[4][8:] == [""] * 5


def test_differences_are_paired_by_seed() -> None:
    rows = [
        row("vicreg", 0.60, seed="0"),
        row("vicreg", 0.70, seed="1"),
        row("vicreg", 0.90, seed="2"),
        row("byol", 0.59, seed="1"),
        row("byol", 0.47, seed="0"),
        row("dino", 0.9, seed="0"),
        row("byol", 0.9, seed="2", dataset="fashion_mnist"),
    ]
    assert against(rows, "vicreg").splitlines()[2:] == [
        "| cifar10 | `byol` | 2 | +0.0 ± 0.0 | -12.0 ± 1.0 |"
    ]


def test_the_page_and_the_package_show_the_tables() -> None:
    rows = read_rows(REPOSITORY / TABLE)
    page = (REPOSITORY / PAGE).read_text(encoding="utf-8")
    assert with_tables(page, summarize(rows), against(rows, "vicreg")) == page
    with MEASURED.open(newline="", encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == measured(rows, "cifar10")


def test_a_method_has_the_pace_of_its_settings_or_else_of_its_recipe(tmp_path: Path) -> None:
    table = tmp_path / "pace.csv"
    rows = ["mmcr,{},1,2.5", "mmcr,{},1,2.0", 'mmcr,"{""views"": ""gentle""}",1,1.2']
    named = [name for name in COLUMNS if name in ("method", "settings", "blocks", "pace")]
    table.write_text("\n".join([",".join(named), *rows]))
    assert pace_of("mmcr", "{}", table) == 2.0  # Measured last.
    assert pace_of("mmcr", '{"views": "gentle"}', table) == 1.2
    assert pace_of("mmcr", '{"learning_rate": 0.1}', table) == 2.0
    assert pace_of("vicreg", "{}", tmp_path / "none.csv") == 1
    with pytest.raises(SystemExit, match=r"methods_pace\.py --methods dino"):
        pace_of("dino", "{}", table)


def test_two_runs_take_a_step_by_turns_and_both_end() -> None:
    first, second = Semaphore(1), Semaphore(0)
    taken: list[str] = []

    def run(name: str, *turns: Any) -> None:
        watch = Turns(*turns)
        nothing: Any = None
        watch.begin(0, 3)
        for step in range(3):
            taken.append(name)
            watch.observe(step, 0, nothing, nothing)
        assert watch.times == sorted(watch.times)
        assert len(watch.times) == 3

    # The one that comes second may start first.
    both = [
        Thread(target=run, args=("b", second, first)),
        Thread(target=run, args=("a", first, second)),
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert "".join(taken) == "ababab"
