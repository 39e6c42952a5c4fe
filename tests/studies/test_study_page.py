"""A study's page and CSV, from made-up results."""

import csv
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from made_up import result, results, seeds
from matplotlib.figure import Figure

from noneg.experiments.figures import bars
from noneg.experiments.judge import collapses, higher
from noneg.experiments.page import (
    as_csv,
    as_markdown,
    as_terminal_text,
    results_table,
    write_study_page,
)
from noneg.experiments.results import Results
from noneg.experiments.study import Claim, JudgedStudy, Study, Variant

STUDY = Study(
    name="made-up",
    title="Made up",
    chapter=1,
    question="Is one better?",
    variants=(Variant("one", {}), Variant("other", {})),
    claims=(
        Claim("One is better.", higher("one", "other")),
        Claim("Other is better.", higher("other", "one"), "one had more practice."),
        Claim("None collapses.", collapses("none"), "nobody was there."),
    ),
    papers=("A paper (1234.56789): 71.4.",),
    draw=lambda made, figure: bars(figure.subplots(), made, "knn"),
    columns=("knn", "loss", "memory_mb", "residual"),
)


def judged(made: Results, directory: Path = Path(), quick: bool = False) -> JudgedStudy:
    shared = {"backbone": "small_resnet", "size": 16, "batch_size": 64, "epochs": 4}
    outcomes = tuple(claim.criterion(made) for claim in STUDY.claims)
    command_line = "noneg study made-up photographs --seeds 3"
    return JudgedStudy(
        STUDY, "photographs", command_line, shared, quick, 6, made, outcomes, directory
    )


@pytest.fixture
def made() -> Results:
    one = [result("one", seed, knn=0.6 + seed / 100, loss=0.25, memory_mb=812.3) for seed in (0, 1)]
    other = [result("other", 0, knn=0.5, loss=0.125), result("other", 1, knn=0.5, residual=1e-15)]
    return results(one, other, [result("other", 2, "the loss is inf at step 7", loss=1e9)])


def test_the_table_has_mean_spread_and_n(made: Results) -> None:
    """By hand: 60 and 61 are 60.5 with a standard deviation of 0.5 times the root of 2."""
    assert results_table(judged(made)).splitlines() == [
        "| variant | n | kNN | loss | peak memory, MB | residual |",
        "| --- | --- | --- | --- | --- | --- |",
        "| one | 2 | 60.5 ± 0.7 | 0.25 ± 0.00 | 812 ± 0 |  |",
        "| other | 3 (1 diverged) | 50.0 ± 0.0 | 0.12 |  | 1.0e-15 |",
    ]


def test_numbers_that_are_not_finite_leave_a_gap() -> None:
    gap = results(seeds("one", [float("nan")] * 2, "residual"))
    assert results_table(judged(gap)).splitlines()[2] == "| one | 2 |  |  |  |  |"


def test_baselines_are_rows_of_their_own() -> None:
    rows = [result("one", seed, knn=0.6, untrained_knn=0.2, pixels_knn=0.3) for seed in (0, 1)]
    lines = results_table(judged(results(rows))).splitlines()[3:]
    assert lines == ["| untrained |  | 20.0 |  |  |  |", "| raw pixels |  | 30.0 |  |  |  |"]
    # A study's own numbers of the untrained network are in the same row.
    rows = [result("one", seed, knn=0.6, residual=0.5, untrained_residual=0.25) for seed in (0, 1)]
    lines = results_table(judged(results(rows))).splitlines()[3:]
    assert lines == ["| untrained |  |  |  |  | 0.25 |"]


def test_each_backbone_has_an_untrained_row_of_its_own() -> None:
    small = result("one", knn=0.6, untrained_knn=0.2, pixels_knn=0.3)
    large = result("other", knn=0.6, untrained_knn=0.4, pixels_knn=0.3)
    large = replace(large, settings={"backbone": "resnet18"})
    lines = results_table(judged(results([small, large]))).splitlines()[4:]
    assert lines == [
        "| untrained |  | 20.0 |  |  |  |",
        "| untrained, resnet18 |  | 40.0 |  |  |  |",
        "| raw pixels |  | 30.0 |  |  |  |",
    ]
    figure = Figure()
    axis = figure.subplots()
    bars(axis, results([small, large]), "knn")
    dotted = [line for line in axis.lines if line.get_linestyle() == ":"]
    assert [list(line.get_xdata()) for line in dotted] == [[20, 20]]


def test_the_page_says_what_held_and_what_did_not(made: Results) -> None:
    page = as_markdown(judged(made))
    assert "| One is better. | **held** | 60.5 % (one) against 50.0 % (other)" in page
    assert "| Other is better. | **did not hold** | 50.0 % (other) against" in page
    assert "n = 2. Likely reason: one had more practice. |" in page
    assert page.count("Likely reason: ") == 1
    assert "| None collapses. | **undecided** | not enough runs: 0 of 2 seeds of none |" in page
    assert "Command: `noneg study made-up photographs --seeds 3`. 5 of 6 runs, up to" in page
    assert "up to 3 seeds per variant, on photographs. Unless a row says" in page
    assert "otherwise: small_resnet, views of 16 px, batches of 64, 4 epochs." in page
    assert "1 runs diverged" not in page
    assert "1 run diverged." in page
    assert "- A paper (1234.56789): 71.4." in page
    assert "quick" not in page


def test_the_page_says_what_all_variants_share(made: Results) -> None:
    shared = replace(STUDY, settings={"norm": "group", "options": {"tau": 0.98}})
    page = as_markdown(replace(judged(made), study=shared))
    assert "All variants have `norm=group`, `options.tau=0.98`." in page
    assert "All variants" not in as_markdown(judged(made))
    nothing = replace(STUDY, settings={"options": {}})
    assert "All variants" not in as_markdown(replace(judged(made), study=nothing))


def test_a_quick_run_says_so(made: Results) -> None:
    quick = judged(made, quick=True)
    assert "**A quick run**" in as_markdown(quick)
    assert "Likely reason: " not in as_markdown(quick)
    assert "decides nothing" in as_terminal_text(quick)
    assert "decides nothing" not in as_terminal_text(judged(made))


def test_the_csv_has_a_row_for_each_run(made: Results) -> None:
    rows = list(csv.DictReader(StringIO(as_csv(judged(made)))))
    assert [(row["variant"], row["seed"]) for row in rows] == [
        ("one", "0"), ("one", "1"), ("other", "0"), ("other", "1"), ("other", "2"),
    ]  # fmt: skip
    assert rows[0]["knn"] == "0.6"
    assert rows[0]["residual"] == ""
    assert rows[3]["residual"] == "1e-15"
    assert rows[4]["diverged"] == "the loss is inf at step 7"
    assert {row["quick"] for row in rows} == {"False"}


def test_three_files_are_written_and_no_figure_of_nothing(made: Results, tmp_path: Path) -> None:
    write_study_page(judged(made, tmp_path / "all"))
    names = {path.name for path in (tmp_path / "all").iterdir()}
    assert names == {"made-up.csv", "made-up.md", "made-up.png"}
    write_study_page(replace(judged(made, tmp_path / "none"), results=Results(())))
    names = {path.name for path in (tmp_path / "none").iterdir()}
    assert names == {"made-up.csv", "made-up.md"}
