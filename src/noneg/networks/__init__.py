"""Backbones, heads, norms and target networks."""

from typing import Literal

# Here, since the settings of a run name it and norms.py imports torch.
Norm = Literal["batch", "group", "frozen"]
