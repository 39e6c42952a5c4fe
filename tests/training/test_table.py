"""A table by steps: rows after the checkpoint are dropped, and new rows fit the columns."""

from pathlib import Path

from noneg.records.table import StepTable


def fill(path: Path, steps: list[int]) -> None:
    table = StepTable(path)
    for step in steps:
        table.append({"step": step, "loss": step / 3} | ({"rank": 2.0} if step == 1 else {}))


def test_the_first_row_decides_the_columns_and_others_leave_cells_empty(tmp_path: Path) -> None:
    fill(tmp_path / "t.csv", [1, 2])
    rows = StepTable(tmp_path / "t.csv").read()
    assert rows == [
        {"step": "1", "loss": "0.333333", "rank": ""} | {"rank": "2"},
        {"step": "2", "loss": "0.666667", "rank": ""},
    ]


def test_a_resumed_run_drops_the_rows_after_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    fill(path, [1, 2, 3, 4])
    table = StepTable(path)
    assert [row["step"] for row in table.forget_after(2)] == ["1", "2"]
    table.append({"step": 3, "loss": 7.0})
    assert [row["step"] for row in table.read()] == ["1", "2", "3"]
    assert table.read()[-1]["loss"] == "7"
    assert list(tmp_path.iterdir()) == [path]


def test_without_rows_to_keep_the_file_is_deleted_and_columns_are_new(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    fill(path, [5, 6])
    table = StepTable(path)
    assert table.forget_after(4) == []
    assert not path.exists()
    table.append({"step": 1, "other": 1.5})
    assert table.read() == [{"step": "1", "other": "1.5"}]
    assert StepTable(tmp_path / "none.csv").forget_after(3) == []
