"""A CSV with a row for some of the steps, which a resumed run goes on with."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import final

from noneg.files import whole_or_not_at_all


@final
class StepTable:
    """Rows in the order of their column "step". The first row decides the columns."""

    def __init__(self, path: Path) -> None:
        """Keep the rows in `path`, which need not exist yet."""
        self.path = path
        self.columns: list[str] = []

    def read(self) -> list[dict[str, str]]:
        """All rows as they were written; none where there is no file."""
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def forget_after(self, step: int) -> list[dict[str, str]]:
        """Drop the rows that a killed run wrote after its last checkpoint; returns the others."""
        rows = self.read()
        kept = [row for row in rows if int(row["step"]) <= step]
        if len(kept) < len(rows) or not kept:
            self.path.unlink(missing_ok=True)
        if kept:
            self.columns = list(kept[0])
        if kept and len(kept) < len(rows):
            with whole_or_not_at_all(self.path) as unfinished:
                self._write(unfinished, "w", kept)
        return kept

    def append(self, row: Mapping[str, int | float | str]) -> dict[str, str]:
        """Write one more row, to six digits, and return it as it reads back.

        Columns that it lacks stay empty.
        """
        self.columns = self.columns or list(row)
        written = dict.fromkeys(self.columns, "") | {
            name: f"{value:.6g}" if isinstance(value, float) else str(value)
            for name, value in row.items()
        }
        self._write(self.path, "a", [written])
        return written

    def _write(self, path: Path, mode: str, rows: Iterable[dict[str, str]]) -> None:
        with path.open(mode, newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns)
            if file.tell() == 0:
                writer.writeheader()
            writer.writerows(rows)


def numbers_of(row: Mapping[str, str]) -> dict[str, float]:
    """A row of numbers, without its empty cells."""
    return {name: float(value) for name, value in row.items() if value != ""}
