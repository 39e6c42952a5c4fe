"""`noneg study` on the command line, to its files."""

import csv
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest

from noneg.cli import main
from noneg.studies import list_studies


def failure(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["study", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("noneg: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_help_imports_no_torch() -> None:
    program = (
        "import sys; from noneg.cli import main\n"
        "try: main(['study', '--help'])\n"
        "except SystemExit as exit: assert not exit.code\n"
        "sys.exit(bool({'torch', 'numpy', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--budget MINUTES" in done.stdout


def test_the_list_has_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [study.name for study in list_studies()]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["bare-siames"], "did you mean bare-siamese?"),
        (["nonsense"], "no study 'nonsense'; there are: augmentations, bare-siamese"),
        (["em", "--seeds", "0"], "--seeds must be at least 1: 0"),
        (["em", "--set", "epochs"], "--set needs NAME=VALUE, such as epochs=10, not epochs"),
        (["em", "nowhere", "--quick", "--set", "epoch=1"], "epoch"),
        (["em", "nowhere", "--quick"], "nowhere"),
        (["em", "--budget", "soon"], "--budget"),
    ],
)
def test_what_cannot_be_run_is_said_in_a_sentence(
    arguments: list[str], what: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert what in failure([*arguments, "--out", str(tmp_path)], capsys)


def test_a_quick_study_from_the_command_to_its_files(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The study with factors: images, training, scores, encoder measure, claims, page."""
    command = ["study", "augmentations", "--quick", "--out", str(tmp_path)]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "undecided: Color augmentation makes `h` forget colors." in said.out
    assert "it decides nothing" in said.out
    # Runs print to their own log files.
    assert "verdict" not in said.out
    page = (tmp_path / "augmentations.md").read_text()
    assert "**A quick run**" in page
    assert "2 of 2 runs, up to 1 seed per variant, on shapes (built in)" in page
    rows = list(csv.DictReader(StringIO((tmp_path / "augmentations.csv").read_text())))
    assert [row["variant"] for row in rows] == ["all", "without color"]
    for row in rows:
        assert 0 <= float(row["knn"]) <= 1
        assert 0 <= float(row["reads_colors"]) <= 1
        assert row["quick"] == "True"
    assert (tmp_path / "augmentations.png").read_bytes().startswith(b"\x89PNG")
    results = {path: path.stat().st_mtime_ns for path in tmp_path.glob("cache/*/*.json")}
    assert len(list(tmp_path.glob("cache/*/result.json"))) == 2

    assert main([*command, "--budget", "0"]) == 0
    assert (tmp_path / "augmentations.md").read_text() == page
    again = {path: path.stat().st_mtime_ns for path in tmp_path.glob("cache/*/*.json")}
    assert again == results
