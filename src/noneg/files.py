"""Files that are written completely or not at all, even if the process is killed; and locks."""

import errno
import json
import os
import platform
import re
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, final
from uuid import uuid4

from noneg.errors import MachineError, printable

if sys.platform != "win32":
    import fcntl


@final
class LockedError(Exception):
    """Another process holds the lock. `str(error)` says which one, as far as it is known."""


@contextmanager
def locked(path: str | os.PathLike[str], *, wait: bool = False) -> Iterator[None]:
    """Keep every other process that uses the same lock out of the block.

    The system frees the lock when the process ends, in whatever way. It also holds between machines
    that share a disk, if the disk can lock; otherwise, and on Windows, nothing is locked.

    Args:
        path: a file that exists only while the lock is held, or after its process was killed.
        wait: until the lock is free.

    Raises:
        LockedError: another process has it, and `wait` is False.
        MachineError: the file cannot be made.
    """
    try:
        descriptor = _lock(Path(path), wait)
    except OSError as error:
        raise MachineError(
            f"{printable(str(path))} cannot be made ({error.strerror or error}): make its folder "
            "writable"
        ) from error
    try:
        yield
    finally:
        # First the name, so that nobody who opens it later gets this lock.
        with suppress(OSError):
            os.unlink(path)
        os.close(descriptor)


def _lock(path: Path, wait: bool) -> int:
    """Open and lock the file; returns its descriptor."""
    how = os.O_RDONLY
    while True:
        descriptor = os.open(path, how | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        if sys.platform != "win32":
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                holder = os.read(descriptor, 200).decode("utf-8", "replace").strip()
                os.close(descriptor)
                raise LockedError(printable(holder) or "another process") from None
            except OSError as error:
                if error.errno == errno.EBADF and how == os.O_RDONLY:
                    # NFS locks only what may be written. Elsewhere, that would keep a disk from
                    # being made read-only as long as the lock is held.
                    os.close(descriptor)
                    how = os.O_RDWR
                    continue
                # This disk cannot lock.
                return descriptor
        # The process that had it before may just have removed the file.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                # On a full disk, nobody learns who holds it.
                with suppress(OSError):
                    path.write_text(f"process {os.getpid()} on {platform.node()}\n")
                return descriptor
        os.close(descriptor)


@contextmanager
def whole_or_not_at_all(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path to write to; it replaces `path` if the block ends without an error.

    Raises:
        MachineError: the file cannot be written.
    """
    path = Path(path)
    # A random name, because process ids can be the same on two machines that share a disk.
    own = path.with_name(f"{path.name}.{uuid4().hex}")
    unfinished = own.with_name(f"{own.name}.unfinished")
    try:
        with disk_faults_explained(path, own):
            yield unfinished
            os.replace(unfinished, path)
    finally:
        with suppress(OSError):
            unfinished.unlink()


@contextmanager
def all_or_none(directory: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary directory for files that belong together.

    They replace those of `directory`, which is made, if the block ends without an error.

    Raises:
        MachineError: they cannot be written.
    """
    directory = Path(directory)
    is_new = not directory.exists()
    try:
        with disk_faults_explained(directory, directory):
            directory.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(
                dir=directory, prefix=".unfinished-", ignore_cleanup_errors=True
            ) as unfinished:
                yield Path(unfinished)
                for each in Path(unfinished).iterdir():
                    os.replace(each, directory / each.name)
    except BaseException:
        if is_new:
            with suppress(OSError):
                directory.rmdir()
        raise


def check_can_be_written(path: str | os.PathLike[str], *, is_directory: bool = False) -> None:
    """Find out before the work, rather than after it, whether its result can be written.

    Args:
        path: a file; its directory must exist.
        is_directory: it is a directory, which `all_or_none` makes with those above it.

    Raises:
        MachineError: it cannot be written, or the disk is full.
    """
    path = Path(path)
    folder = path.parent
    if is_directory:
        folder = next(each for each in (path, *path.absolute().parents) if each.exists())
    trial = folder / f"{path.name}.{uuid4().hex}.unfinished"
    try:
        with disk_faults_explained(path, trial):
            if path.is_dir() and not is_directory:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(trial))
            trial.write_bytes(b"0")
    finally:
        with suppress(OSError):
            trial.unlink()


@contextmanager
def usual_mode(path: Path) -> Iterator[None]:
    """Give the file that the block writes the mode of any other new file, as the umask says.

    safetensors, from 0.8 on, lets only the file's owner read it.
    """
    path.touch()
    mode = path.stat().st_mode
    yield
    # Some disks know no modes, and refuse to change them.
    if path.stat().st_mode != mode:
        path.chmod(stat.S_IMODE(mode))


_ADVICE = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EROFS: "make the disk writable",
    errno.EACCES: "make its folder writable",
    errno.EPERM: "make its folder writable",
    errno.ENOENT: "make its folder",
    errno.EISDIR: "add the name of a file",
    errno.ENOTDIR: "remove the file that is in the way",
}


@contextmanager
def disk_faults_explained(path: Path, own: Path) -> Iterator[None]:
    """Say, of a fault of the disk in the block, which file or directory could not be written.

    Args:
        path: what was to be written.
        own: what the names of the files begin with that are written for it.

    Raises:
        MachineError: with the system's error, about `path`, as its cause.
    """
    try:
        yield
    except Exception as error:
        fault = _fault_of_the_disk(error)
        # A block may also read files, from other places.
        place = None if fault is None else fault.filename
        if place is None and not isinstance(error, MachineError):
            place = own
        if fault is None or not str(place).startswith(str(own)):
            raise
        number = fault.errno or 0
        # Other libraries add their own words.
        reason = os.strerror(number) if number else fault.strerror or str(fault)
        raise MachineError(
            f"{printable(str(path))} cannot be written ({printable(reason)}), so it stays as it "
            f"was: {_ADVICE.get(number, 'see to the disk')}, or choose another place"
        ) from OSError(number, reason, str(path))


def _fault_of_the_disk(error: BaseException) -> OSError | None:
    """The system's error that this one is about."""
    cause = error.__cause__ if isinstance(error, MachineError) else error
    if cause is None or isinstance(cause, OSError):
        return cause
    # That is all that libraries in Rust, such as safetensors, tell.
    told = re.search(r"\(os error (\d+)\)", str(cause))
    return OSError(int(told[1]), os.strerror(int(told[1]))) if told else None


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8, with undecodable characters as escapes.

    Raises:
        MachineError: the file cannot be written.
    """
    with whole_or_not_at_all(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")


_FORMULA = tuple("=+-@\t\r\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}") + tuple(
    "\N{FULLWIDTH HYPHEN-MINUS}\N{FULLWIDTH COMMERCIAL AT}"
)


def to_cell(text: str) -> str:
    """Text for a CSV table, with an apostrophe before what a spreadsheet would compute.

    Numbers stay as they are.
    """
    if not text.lstrip("'").startswith(_FORMULA):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def from_cell(text: str) -> str:
    """What `to_cell` was given."""
    is_marked = text.startswith("'") and text.lstrip("'").startswith(_FORMULA)
    return text[1:] if is_marked else text


_LARGEST = {".yaml": 2**20, ".json": 2**26}
"""Bytes of the files that noneg reads; what it writes is far smaller."""

_MOST_VALUES = 100_000


def read_fields(path: Path) -> dict[str, Any]:
    """The fields in a YAML or JSON file, by its extension; nothing else than plain values.

    Raises:
        OSError: the file is missing, or cannot be read.
        ValueError: it is too large, or holds something else.
    """
    is_json = path.suffix == ".json"
    with path.open("rb") as file:
        content = file.read(_LARGEST[".json" if is_json else ".yaml"] + 1)
    if len(content) > _LARGEST[".json" if is_json else ".yaml"]:
        raise ValueError("it is too large")
    try:
        if is_json:
            fields = json.loads(content, parse_int=lambda digits: _not_too_large(int(digits)))
        else:
            fields = parse_yaml(content.decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
        raise ValueError("it must hold settings, one 'name: value' per line")
    return fields


def parse_yaml(text: str) -> Any:
    """The plain values in YAML.

    Raises:
        ValueError: it is not YAML, or a few lines of it stand for millions of values.
    """
    import yaml

    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    # Aliases can repeat a list of aliases, and so on: such a value cannot be printed.
    waiting, values = [found], 0
    while waiting:
        each = waiting.pop()
        values += 1
        if values > _MOST_VALUES:
            raise ValueError("it holds too many values")
        if isinstance(each, dict):
            waiting += each.values()
        elif isinstance(each, list | tuple | set):
            waiting += each
        elif isinstance(each, int):
            _not_too_large(each)
    return found


def _not_too_large(number: int) -> int:
    # Larger than any that is written, and floats could not hold some of them.
    if abs(number) >= 2**64:
        raise ValueError("a number in it is too large")
    return number


def write_json(path: str | os.PathLike[str], fields: Mapping[str, Any]) -> None:
    """Write a JSON file; numbers must be finite.

    Raises:
        MachineError: the file cannot be written.
    """
    write_text(path, json.dumps(fields, indent=2, allow_nan=False) + "\n")
