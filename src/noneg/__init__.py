"""noneg: self-supervised image encoders without negative pairs."""

from typing import TYPE_CHECKING, Any

from noneg._version import __version__

if TYPE_CHECKING:
    from noneg.encoder import Encoder, load
    from noneg.errors import NonegError
    from noneg.training.run import Run, train

__all__ = ["Encoder", "NonegError", "Run", "__version__", "load", "train"]

# Imported when they are first used: torch takes seconds, and `noneg --help` does not need it.
_HOMES = {
    "Encoder": "noneg.encoder",
    "NonegError": "noneg.errors",
    "Run": "noneg.training.run",
    "load": "noneg.encoder",
    "train": "noneg.training.run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'noneg' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
