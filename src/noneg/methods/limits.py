"""Ranges of a method's options. Free of torch, so that `noneg train --help` is quick."""

import math
from collections.abc import Callable
from typing import Any

from noneg.errors import NonegError


def check_options(
    options: object,
    *,
    counts: tuple[str, ...] = (),
    positive: tuple[str, ...] = (),
    weights: tuple[str, ...] = (),
    shares: tuple[str, ...] = (),
) -> None:
    """Check numbers when options are made, because many losses are NaN or nonsense beyond.

    Args:
        options: of a method.
        counts: names of whole numbers, 1 or more, or of a list of them that is not empty; None
            passes.
        positive: names of numbers above 0.
        weights: names of numbers that are 0 or more.
        shares: names of numbers in [0, 1].

    Raises:
        NonegError: a number is outside its range.
    """
    kinds: tuple[tuple[tuple[str, ...], str, Callable[[Any], bool]], ...] = (
        (counts, "1 or more", _is_count),
        (positive, "a number above 0", lambda value: 0 < value < math.inf),
        (weights, "0 or more", lambda value: 0 <= value < math.inf),
        (shares, "in [0, 1]", lambda value: 0 <= value <= 1),
    )
    for names, wanted, is_within in kinds:
        for name in names:
            value = getattr(options, name)
            if not is_within(value):
                raise NonegError(f"{option_flag(name)} must be {wanted}, not {_told(value)}")


def option_flag(name: str) -> str:
    """An option as a flag: target_scale -> --options.target-scale."""
    return f"--options.{name.replace('_', '-')}"


def _is_count(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return len(value) > 0 and all(each >= 1 for each in value)
    return value is None or value >= 1


def _told(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else f"{value:g}"
