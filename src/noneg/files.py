"""Files that are written completely or not at all, even if the process is killed."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from noneg.errors import NonegError


@contextmanager
def whole_or_not_at_all(path: Path) -> Iterator[Path]:
    """A temporary path to write to; it replaces `path` if the block ends without an error."""
    # A random name, because process ids can be the same on two machines that share a disk.
    unfinished = path.with_name(f"{path.name}.{uuid4().hex}.unfinished")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        with suppress(OSError):
            unfinished.unlink()


def save_json(path: str | os.PathLike[str], fields: Mapping[str, Any]) -> None:
    """Write a JSON file.

    Raises:
        NonegError: the file cannot be written.
    """
    try:
        with whole_or_not_at_all(Path(path)) as unfinished:
            text = json.dumps(fields, indent=2, allow_nan=False) + "\n"
            unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise NonegError(
            f"{path} cannot be written ({error.strerror or error}): choose a path in an "
            "existing folder."
        ) from error
