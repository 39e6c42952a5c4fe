"""Files that appear whole or not at all, so that a kill never leaves half of one."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from noneg.errors import NonegError


@contextmanager
def whole_or_not_at_all(path: Path) -> Iterator[Path]:
    """A name to write to, which takes the place of `path` if nothing goes wrong."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        with suppress(OSError):
            unfinished.unlink()


def save_json(path: str | os.PathLike[str], fields: Mapping[str, Any]) -> None:
    """Write JSON.

    Raises:
        NonegError: it cannot be written.
    """
    try:
        with whole_or_not_at_all(Path(path)) as unfinished:
            text = json.dumps(fields, indent=2, allow_nan=False) + "\n"
            unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise NonegError(
            f"{path} cannot be written ({error.strerror or error}): choose a place in an "
            "existing folder."
        ) from error
