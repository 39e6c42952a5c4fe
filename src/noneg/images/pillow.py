"""Pillow, kept from warning and from its own size limit while we decode."""

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

from PIL import Image

_lock = threading.Lock()
_inside = 0
_limit: int | None = None
_list: list[Any] = []
_FILTER = ("ignore", None, Warning, re.compile(r"PIL\b"), 0)


@contextmanager
def pillow_without_warnings() -> Iterator[None]:
    """Silence Pillow's warnings, and lift its pixel limit; we hold a limit of our own.

    `warnings.catch_warnings` swaps a global list, which is wrong in threads: one thread's
    exit undoes another's entry. So the first thread in adds one filter and the last one out
    removes it. Pillow's limit is lifted because it refuses a file before telling how large it is.
    """
    global _inside, _limit, _list
    with _lock:
        _inside += 1
        if _inside == 1:
            _limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            _list = cast(list[Any], warnings.filters)
            _list.insert(0, _FILTER)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                if Image.MAX_IMAGE_PIXELS is None:
                    Image.MAX_IMAGE_PIXELS = _limit
                # Somebody's catch_warnings may have put a copy in place of the list meanwhile.
                for filters in (_list, cast(list[Any], warnings.filters)):
                    with suppress(ValueError):
                        filters.remove(_FILTER)
