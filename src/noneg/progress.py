"""Progress on standard error: a bar on a terminal, a line now and then in a file or a pipe."""

import sys
from time import monotonic
from types import TracebackType
from typing import Any, Final, final

from tqdm import tqdm

SECONDS_BETWEEN_LINES: Final = 30
"""Without a terminal there is at most one line in this time, and one at the end."""


def progress_bar(
    *,
    total: int,
    desc: str,
    unit: str = " images",
    initial: int = 0,
    delay: float = 0.0,
    shown: bool,
) -> "ProgressBar":
    """Show how much of a task is done; use it as a context manager, or close it.

    Args:
        total: units of the whole task.
        desc: name of the task, such as "train".
        unit: what is counted, in the plural.
        initial: units that were done before.
        delay: show nothing in the first seconds, and nothing at all if the task is done by then.
        shown: if False, nothing is ever shown.
    """
    return ProgressBar(total, desc, unit.strip(), initial, delay, shown)


def say_above(text: str) -> None:
    """Print a line on standard output without breaking the bar."""
    tqdm.write(text)


@final
class ProgressBar:
    """See `progress_bar`. `done` counts the units so far."""

    def __init__(
        self, total: int, desc: str, unit: str, initial: int, delay: float, shown: bool
    ) -> None:
        """Show the empty bar, if there is a terminal."""
        terminal = shown and sys.stderr.isatty()
        self._bar: tqdm[Any] = tqdm(
            total=total,
            desc=desc,
            unit=f" {unit}",
            initial=initial,
            delay=delay,
            dynamic_ncols=True,
            mininterval=0.2,
            disable=not terminal,
        )
        self._in_lines = shown and not terminal
        self._total, self._desc, self._unit, self._postfix = total, desc, unit, ""
        self.done = self._initial = initial
        self._delay = delay
        self._started = self._last_line = monotonic()

    def update(self, n: int = 1) -> None:
        """Count `n` more units as done."""
        self.done += n
        self._bar.update(n)
        now = monotonic()
        due = now - self._last_line >= SECONDS_BETWEEN_LINES
        if self._in_lines and due and self._initial < self.done < self._total:
            left = (now - self._started) * (self._total - self.done) / (self.done - self._initial)
            self._write_line(f"{_duration(left)} left")
            self._last_line = now

    def set_description(self, text: str) -> None:
        """Rename the task."""
        self._desc = text
        self._bar.set_description(text)

    def set_postfix_str(self, text: str, refresh: bool = False) -> None:
        """Show `text` after the bar; `refresh` shows it at once."""
        self._postfix = text
        self._bar.set_postfix_str(text, refresh=refresh)

    def close(self) -> None:
        """Leave the bar as it is, or write the last line."""
        self._bar.close()
        passed = monotonic() - self._started
        if self._in_lines and self.done > self._initial and passed >= self._delay:
            self._write_line(f"after {_duration(passed)}")
        self._in_lines = False

    def __enter__(self) -> "ProgressBar":
        """The bar itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def _write_line(self, time: str) -> None:
        share = self.done / self._total if self._total else 1.0
        count = f"{self._desc}: {self.done:,} of {self._total:,} {self._unit}"
        parts = [count, f"{share:.0%}", time, self._postfix]
        print(", ".join(part for part in parts if part), file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
