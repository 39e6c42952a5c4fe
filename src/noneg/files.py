"""Files that are written completely or not at all, even if the process is killed."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from noneg.errors import NonegError, printable


@contextmanager
def whole_or_not_at_all(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path to write to; it replaces `path` if the block ends without an error.

    Raises:
        NonegError: the file cannot be written.
    """
    path = Path(path)
    # A random name, because process ids can be the same on two machines that share a disk.
    unfinished = path.with_name(f"{path.name}.{uuid4().hex}.unfinished")
    try:
        yield unfinished
        os.replace(unfinished, path)
    except OSError as error:
        raise NonegError(
            f"{printable(str(path))} cannot be written ({error.strerror or error}): choose a path "
            "in an existing folder with enough space"
        ) from error
    finally:
        with suppress(OSError):
            unfinished.unlink()


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8, with undecodable characters as escapes.

    Raises:
        NonegError: the file cannot be written.
    """
    with whole_or_not_at_all(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | os.PathLike[str], fields: Mapping[str, Any]) -> None:
    """Write a JSON file; numbers must be finite.

    Raises:
        NonegError: the file cannot be written.
    """
    write_text(path, json.dumps(fields, indent=2, allow_nan=False) + "\n")
