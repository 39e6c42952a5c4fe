"""Faults of the machine during a run, as one sentence: what, where, what is safe, what to do."""

import errno
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from noneg.errors import MachineError, NonegError, printable
from noneg.records.directory import RunDirectory

_DISK = {
    errno.ENOSPC: ("the disk is full", "make room"),
    errno.EDQUOT: ("the disk quota is used up", "make room"),
    errno.EFBIG: ("the file has reached the size that is allowed", "raise the limit (ulimit -f)"),
    errno.EROFS: ("the disk has become read-only", "make it writable"),
    errno.EACCES: ("writing is not allowed any more", "make the directory writable"),
    errno.EPERM: ("writing is not allowed any more", "make the directory writable"),
    errno.EIO: ("the disk reports an error", "check the disk"),
    errno.ENOENT: ("a file or directory has vanished", "put it back"),
    errno.ESTALE: ("the network disk has lost the file", "check the network disk"),
    errno.ENOTCONN: ("the network disk is not connected", "check the network disk"),
    errno.ETIMEDOUT: ("the network disk does not answer", "check the network disk"),
    errno.EMFILE: ("too many files are open", "raise the limit (ulimit -n)"),
}

_NO_MEMORY = (
    *("can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory"),
    *("bad_alloc", "can't start new thread"),
)
_LOST_PROCESS = (
    *("Connection closed by peer", "Connection reset by peer", "Broken pipe"),
    *("Connection refused", "Socket closed", "NCCL", "heartbeat"),
)


@contextmanager
def explained(run: RunDirectory) -> Iterator[None]:
    """Turn faults of disk, memory and other processes into a `NonegError`; bugs stay what they are.

    Ctrl-C and SIGTERM say how to go on.

    Args:
        run: its checkpoint is what is safe.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if interrupt.args or not run.last_checkpoint.exists():
            raise
        raise KeyboardInterrupt(how_to_go_on(run)) from None
    except Exception as error:
        sentence = explain(error, run)
        if sentence is None:
            raise
        raise NonegError(sentence) from error


def explain(error: BaseException, run: RunDirectory) -> str | None:
    """One sentence about a fault of the machine; None for any other error."""
    cause = error.__cause__ if isinstance(error, MachineError) else error
    if isinstance(cause, OSError) and cause.errno != errno.ENOMEM:
        if isinstance(cause, BrokenPipeError):
            # Nobody reads what is printed.
            return None
        number = cause.errno or 0
        what, advice = _DISK.get(number, (cause.strerror or str(cause), "check the disk"))
        where = printable(os.fsdecode(cause.filename)) if cause.filename else str(run.path)
        return f"{where}: {what}; {_what_is_safe(run, advice)}"
    if isinstance(error, MachineError):
        return f"{error}; {_what_is_safe(run, 'when it is seen to')}"
    if isinstance(error, NonegError):
        return None
    said = " ".join(str(error).split())
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or _has(said, _NO_MEMORY):
        return _memory_is_full(run)
    if isinstance(error, RuntimeError) and _has(said, _LOST_PROCESS):
        return lost_process(run)
    return None


def lost_process(run: RunDirectory) -> str:
    """One sentence about another process that has ended."""
    return f"another process of this run has ended; {_what_is_safe(run, 'see why')}"


def _has(said: str, signs: tuple[str, ...]) -> bool:
    return any(sign.lower() in said.lower() for sign in signs)


def _memory_is_full(run: RunDirectory) -> str:
    try:
        settings = run.read_config() or {}
    except NonegError:
        settings = {}
    batch, chunk = (settings.get(name) for name in ("batch_size", "chunk_size"))
    at_once = chunk or batch
    what, smaller = "the memory is full", 32
    if isinstance(at_once, int):
        what += f", with a --batch-size of {batch}"
        what += f" and a --chunk-size of {chunk}" if chunk else ""
        smaller = max(2, at_once // 4)
    advice = f"start again with --chunk-size {smaller} or a smaller --batch-size"
    if not run.last_checkpoint.exists():
        return f"{what}; no step of {run.path} is saved yet: {advice}"
    return (
        f"{what}; the last checkpoint in {run.path} is whole: {advice}, or go on where there is "
        f"more memory with {resume_command(run)}"
    )


def resume_command(run: RunDirectory) -> str:
    """What finishes the run, to be copied into a shell."""
    return f"noneg train --resume {shlex.quote(printable(str(run.path)))}"


def how_to_go_on(run: RunDirectory) -> str:
    """What the program says after Ctrl-C or SIGTERM."""
    return f"Continue with: {resume_command(run)}"


def _what_is_safe(run: RunDirectory, advice: str) -> str:
    if not run.last_checkpoint.exists():
        again = resume_command(run) if run.exists() else "start again"
        return f"no step of {run.path} is saved yet: {advice}, then {again}"
    return f"the last checkpoint in {run.path} is whole: {advice}, then {resume_command(run)}"
