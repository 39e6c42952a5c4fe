"""Checkpoints, from which a killed run continues: written completely or not at all."""

import io
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any, cast, final

import torch

from noneg.errors import DivergedError, NonegError, printable
from noneg.files import disk_faults_explained
from noneg.methods.base import Method

FORMAT = 1
"""Of checkpoints; higher if older versions would misread them."""


@final
class StopRequest:
    """Remembers Ctrl-C or SIGTERM until the step is done; a second Ctrl-C stops at once.

    A second SIGTERM does not: torchrun and SLURM may each send one.
    """

    def __init__(self) -> None:
        self.received = False

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = True

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle these signals inside the block; does nothing outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._receive) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does; does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, _frame: FrameType | None) -> None:
        # Once is enough: a second one must not end the cleaning up.
        signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    # None is a handler that is not Python's.
    before = signal.signal(signal.SIGTERM, interrupt) or signal.SIG_DFL
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state`, and replace `path` when all of it is on the disk.

    Raises:
        DivergedError: a weight is not finite; the previous checkpoint is kept.
        MachineError: the file cannot be written.
    """
    for name, value in state["state_dict"].items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise DivergedError(
                f"the weights {name} are not finite at step {state['global_step']}: lower "
                "--learning-rate; the last good checkpoint is kept"
            )
    partial = path.with_suffix(".partial")
    try:
        with disk_faults_explained(path, partial):
            with partial.open("wb") as file:
                archive = _Archive(file)
                torch.save(state, cast(IO[bytes], archive))
                if archive.fault is not None:
                    raise archive.fault
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


@final
class _Archive(io.RawIOBase):
    """Passes on what torch writes, until a write fails.

    If torch saw that, it would complain of the length of its archive, or abort the process.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.fault: OSError | None = None

    def write(self, data: Any) -> int:
        if self.fault is None:
            try:
                self._file.write(data)
            except OSError as error:
                self.fault = error
        return len(data)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state that `write_checkpoint` wrote. No code from the file is run.

    Raises:
        NonegError: it cannot be read.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state["state_dict"], dict) or not isinstance(state["global_step"], int):
            raise TypeError("it is no checkpoint")
        if not isinstance(version := state.get("format", 1), int) or version > FORMAT:
            raise NonegError(f"{path} was written by a newer noneg: upgrade noneg")
        if "callbacks" in state:
            # Lightning's Trainer wrote it, before noneg had its own loop.
            state |= {
                "metering": state["callbacks"]["Reporting"]["metering"],
                "watchdog": state["callbacks"]["Watchdog"],
                "precision": state.get("MixedPrecision", {}),
            }
        return state
    except FileNotFoundError:
        raise NonegError(f"{path} is missing: copy the run again") from None
    except NonegError:
        raise
    except Exception as error:  # torch raises almost any exception for a damaged file.
        raise unusable(path, error) from error


def unusable(path: Path, error: Exception) -> NonegError:
    """The error for a checkpoint that is damaged or does not fit."""
    sentence = printable(" ".join(str(error).split())[:200]) or type(error).__name__
    return NonegError(f"{path} cannot be resumed from ({sentence}): delete it to start over")


def load_weights(method: Method, checkpoint: dict[str, Any]) -> None:
    """Load the weights, targets and statistics of a checkpoint into a method.

    Raises:
        NonegError: the checkpoint belongs to another method.
    """
    prefix = "method."
    weights = {name.removeprefix(prefix): each for name, each in checkpoint["state_dict"].items()}
    try:
        method.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        sentence = printable(" ".join(str(error).split())[:200])
        raise NonegError(
            f"the checkpoint does not fit the settings in config.yaml ({sentence}): copy the run "
            "again"
        ) from error
