"""run.json: where, when, on what and with what a run was made, and the command that repeats it."""

import platform
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, final

from noneg._version import __version__
from noneg.images import Images
from noneg.training.hardware import Hardware

_LIBRARIES = ("torch", "torchvision", "timm", "pytorch-lightning", "numpy")


@final
@dataclass(frozen=True)
class About:
    """What config.yaml does not say of a run.

    Attributes:
        command: repeats the run, where its images can be found again.
        started: ISO 8601, UTC; of the last start, where it was resumed.
        seconds: of training, over all its starts; 0 while it goes on.
        hardware: device, precision and why.
        versions: of noneg, Python and the libraries that compute.
        data: description, images, skipped, channels, stored_size (pixels), classes (or None).
    """

    command: str
    started: str
    seconds: float
    hardware: str
    versions: dict[str, str]
    data: dict[str, Any]


def about_run(images: Images, hardware: Hardware, directory: Path) -> About:
    """What is known before the first step."""
    return About(
        command=shlex.join(["noneg", "train", "--config", str(directory / "config.yaml")]),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=0.0,
        hardware=f"{hardware.reason}; {platform.processor() or platform.machine()}, "
        f"{platform.system()}",
        versions={
            "noneg": __version__,
            "Python": platform.python_version(),
            **{name: version(name) for name in _LIBRARIES},
        },
        data={
            "description": images.description,
            "images": len(images.pixels),
            "skipped": len(images.skipped),
            "channels": images.pixels.shape[1],
            "stored_size": images.pixels.shape[-1],
            "classes": None if images.classes is None else len(images.classes),
        },
    )
