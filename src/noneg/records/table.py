"""A CSV table with a row for some of the steps, which a resumed run continues."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Float64

from noneg.errors import NonegError
from noneg.files import whole_or_not_at_all


@final
class StepTable:
    """Rows in the order of their column "step". The first row decides the columns."""

    def __init__(self, path: Path) -> None:
        """Use the file `path`, which need not exist yet."""
        self.path = path
        self.columns: list[str] = []

    def read(self) -> list[dict[str, str]]:
        """All rows as they were written; none if there is no file.

        Raises:
            NonegError: the file cannot be read.
        """
        columns, *rows = self._lines() or [[]]
        return [dict(zip(columns, row, strict=False)) for row in rows]

    def read_numbers(self) -> dict[str, Float64[np.ndarray, " rows"]]:
        """Each column, with NaN for empty cells, without rows of too few or too many cells.

        A killed process or a full disk can leave such a row at the end of the file.

        Raises:
            NonegError: the file cannot be read, or a cell is not a number.
        """
        columns, *rows = self._lines() or [[]]
        rows = [row for row in rows if len(row) == len(columns)]
        try:
            return {
                column: np.array([float(row[position] or "nan") for row in rows], dtype=np.float64)
                for position, column in enumerate(columns)
            }
        except ValueError as error:
            raise NonegError(f"{self.path} is not a table of numbers: {error}") from None

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
        """Append a row, with floats to six digits, and return it as it reads back.

        Its missing columns stay empty, and those that the table does not have are left out.
        """
        self.columns = self.columns or list(row)
        written = dict.fromkeys(self.columns, "") | {
            name: f"{value:.6g}" if isinstance(value, float) else str(value)
            for name, value in row.items()
            if name in self.columns
        }
        self._write(self.path, "a", [written])
        return written

    def _lines(self) -> list[list[str]]:
        """The header's cells, then each row's."""
        try:
            with self.path.open(newline="", encoding="utf-8") as file:
                return [line for line in csv.reader(file) if line]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, csv.Error) as error:
            raise NonegError(f"{self.path} cannot be read ({error}): copy the run again") from None

    def _write(self, path: Path, mode: str, rows: Iterable[dict[str, str]]) -> None:
        with path.open(mode, newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns)
            if file.tell() == 0:
                writer.writeheader()
            writer.writerows(rows)


def numbers_of(row: Mapping[str, str]) -> dict[str, float]:
    """A row of numbers, without its empty cells."""
    return {name: float(value) for name, value in row.items() if value != ""}
