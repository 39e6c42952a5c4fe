"""Files that appear whole or not at all, so that a kill never leaves half of one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


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
