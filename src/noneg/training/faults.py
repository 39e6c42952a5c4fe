"""Faults of the machine during a run, as one sentence: what, where, what is safe, what to do."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from noneg.errors import NonegError, printable
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
    errno.EMFILE: ("too many files are open", "raise the limit (ulimit -n)"),
}

_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc")
_LOST_PROCESS = (
    *("Connection closed by peer", "Connection reset by peer", "Broken pipe"),
    *("Connection refused", "Socket closed", "NCCL", "heartbeat"),
)


@contextmanager
def explained(run: RunDirectory) -> Iterator[None]:
    """Turn faults of disk, memory and other processes into a `NonegError`; bugs stay what they are.

    Args:
        run: its checkpoint is what is safe.
    """
    try:
        yield
    except Exception as error:
        sentence = explain(error, run)
        if sentence is None:
            raise
        raise NonegError(sentence) from error


def explain(error: BaseException, run: RunDirectory) -> str | None:
    """One sentence about a fault of the machine; None for any other error."""
    # What noneg's own files raise for a disk was an OSError before.
    cause = error.__cause__ if isinstance(error, NonegError) else error
    if isinstance(cause, OSError):
        number = cause.errno or 0
        what, advice = _DISK.get(number, (cause.strerror or str(cause), "check the disk"))
        where = printable(os.fsdecode(cause.filename)) if cause.filename else str(run.path)
        return f"{where}: {what}; {_what_is_safe(run, advice)}"
    if isinstance(error, NonegError):
        return None
    said = " ".join(str(error).split())
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or _has(said, _NO_MEMORY):
        advice = "start again with a smaller --batch-size, or with --chunk-size 32"
        return f"the memory is full; {_what_is_safe(run, advice, resumes=False)}"
    if isinstance(error, RuntimeError) and _has(said, _LOST_PROCESS):
        return f"another process of this run has ended; {_what_is_safe(run, 'see why')}"
    return None


def _has(said: str, signs: tuple[str, ...]) -> bool:
    return any(sign.lower() in said.lower() for sign in signs)


def _what_is_safe(run: RunDirectory, advice: str, *, resumes: bool = True) -> str:
    if not run.last_checkpoint.exists():
        return f"no step of {run.path} is saved yet: {advice}, and start again"
    safe = f"the last checkpoint in {run.path} is whole"
    if not resumes:
        return f"{safe}; {advice}"
    return f"{safe}: {advice}, then noneg train --resume {run.path}"
