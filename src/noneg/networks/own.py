"""Backbones of one's own: a function by its path, `package.module:function`, or a module in memory.

A path can be written into an encoder's description, so such an encoder loads again without pickle.
A module in memory cannot: whoever loads its encoder gives the module again.
"""

import copy
import importlib
import inspect
import os
import re
import sys
from typing import Any

from torch import nn

from noneg.errors import NonegError

_kept: dict[str, nn.Module] = {}
_allowed: set[str] = set()


def is_own(name: str) -> bool:
    """Whether this is not the name of a network that noneg or timm knows."""
    is_path = re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name) is not None
    return name.startswith("<") or (is_path and not name.startswith("timm:"))


def allow(name: str) -> None:
    """Say that the code of this path may run: the user has named it."""
    _allowed.add(name)


def is_allowed(name: str) -> bool:
    """Whether `allow` was called for it, it was built before, or it is a module in memory."""
    return name in _allowed or name.startswith("<")


def keep_module(module: nn.Module, name: str | None = None) -> str:
    """Remember a module of this process, so that `build_own` can copy it by the returned name.

    Args:
        module: float [B, C, S, S] -> [B, D] or [B, D, h, w]; a copy is kept.
        name: of a run that was started with this module before; by default a new one.
    """
    name = name or f"<{type(module).__name__} {len(_kept) + 1}>"
    _kept[name] = copy.deepcopy(module)
    return name


def build_own(name: str, *, channels: int, size: int) -> nn.Module:
    """A copy of the kept module, or what the function returns.

    The function is called with those of the arguments `channels` and `size` that it has.

    Raises:
        NonegError: there is no such module or function, or it fails, or returns something else.
    """
    if name.startswith("<"):
        if name not in _kept:
            raise NonegError(
                f"the network {name} was a module in memory: give it again as backbone=, in Python"
            )
        return copy.deepcopy(_kept[name])
    allow(name)
    function = _find(name)
    try:
        accepted = inspect.signature(function).parameters
        given = {"channels": channels, "size": size}
        module = function(**{key: value for key, value in given.items() if key in accepted})
    except Exception as error:
        raise NonegError(
            f"--backbone {name} fails with {type(error).__name__}: {error}; it must return a "
            "torch.nn.Module, and may take channels and size"
        ) from error
    if not isinstance(module, nn.Module):
        raise NonegError(
            f"--backbone {name} returns {type(module).__name__}, but must return a torch.nn.Module"
        )
    return module


def _find(name: str) -> Any:
    path, _, attribute = name.partition(":")
    here = os.getcwd()
    # The program `noneg` does not look into the current directory, unlike `python -m noneg`.
    added = here not in sys.path
    if added:
        sys.path.append(here)
    try:
        function = getattr(importlib.import_module(path), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise NonegError(
            f"--backbone {name} cannot be found ({error}): give package.module:function of an "
            f"installed package, or of a file in {here}"
        ) from error
    finally:
        if added:
            sys.path.remove(here)
    if not callable(function):
        raise NonegError(f"--backbone {name} is a {type(function).__name__}, not a function")
    return function
