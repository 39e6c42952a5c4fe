"""noneg: self-supervised image encoders without negative pairs."""

from noneg._version import __version__

__all__ = ["__version__"]
