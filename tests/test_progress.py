"""What is shown on a terminal (a pseudo-terminal here), in a pipe, and when nothing shall be."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from noneg.progress import progress_bar

# Ten units of work on a clock that moves ten seconds per unit.
PROGRAM = """
import sys
import noneg.progress
from noneg.progress import progress_bar, say_above

clock = [0.0]
noneg.progress.monotonic = lambda: clock[0]
with progress_bar(
    total=1_000, desc="train", unit="steps", delay={delay}, initial={initial}, shown={shown}
) as bar:
    for number in range({updates}):
        bar.set_postfix_str(f"loss {{number / 10:.1f}}", refresh=True)
        clock[0] += 10
        bar.update(100)
        if number == 4:
            bar.set_description("again")
            say_above("half of it")
assert bar.done == {initial} + 100 * {updates}
"""


def program(*, shown: bool = True, updates: int = 10, delay: int = 0, initial: int = 0) -> str:
    return PROGRAM.format(shown=shown, updates=updates, delay=delay, initial=initial)


def in_a_pipe(code: str) -> tuple[str, str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout, done.stderr


def on_a_terminal(code: str) -> str:
    """Standard output and standard error of a program, both on one pseudo-terminal."""
    ours, theirs = pty.openpty()
    rows_and_columns = struct.pack("HHHH", 24, 120, 0, 0)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, rows_and_columns)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    while True:
        try:
            block = os.read(ours, 4096)
        except OSError:
            # Linux reports the end of a pseudo-terminal as an error.
            break
        if not block:
            break
        seen += block
    os.close(ours)
    assert process.wait() == 0, seen
    return seen.decode()


def test_a_terminal_gets_a_bar_that_is_drawn_again() -> None:
    seen = on_a_terminal(program())
    assert "\r" in seen
    assert "1000/1000" in seen
    assert "100%|" in seen
    assert "loss 0.9" in seen
    assert "\nhalf of it" in seen.replace("\r", "\n")


def test_a_pipe_gets_a_line_each_half_minute_and_one_at_the_end() -> None:
    said, shown = in_a_pipe(program())
    assert said == "half of it\n"
    assert shown == (
        "train: 300 of 1,000 steps, 30%, 1 min left, loss 0.2\n"
        "again: 600 of 1,000 steps, 60%, 40 s left, loss 0.5\n"
        "again: 900 of 1,000 steps, 90%, 10 s left, loss 0.8\n"
        "again: 1,000 of 1,000 steps, 100%, after 2 min, loss 0.9\n"
    )


def test_the_time_left_does_not_count_what_was_done_before() -> None:
    _, shown = in_a_pipe(program(initial=500, updates=3))
    assert shown.splitlines()[0] == "train: 800 of 1,000 steps, 80%, 20 s left, loss 0.2"


def test_a_task_that_stops_early_says_how_far_it_came() -> None:
    _, shown = in_a_pipe(program(updates=2))
    assert shown == "train: 200 of 1,000 steps, 20%, after 20 s, loss 0.1\n"


@pytest.mark.parametrize("code", [program(shown=False), program(delay=30, updates=2)])
def test_nothing_is_shown_when_not_asked_for_or_soon_done(code: str) -> None:
    assert in_a_pipe(code)[1] == ""
    if "shown=False" in code:
        assert on_a_terminal(code) == "half of it\r\n"


def test_it_is_closed_by_hand_too(capsys: pytest.CaptureFixture[str]) -> None:
    bar = progress_bar(total=2, desc="scoring", unit="parts", shown=True)
    bar.update(2)
    bar.close()
    bar.close()
    assert capsys.readouterr().err == "scoring: 2 of 2 parts, 100%, after 0 s\n"
