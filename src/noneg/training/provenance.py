"""run.json: where, when, on what and with what a run was made."""

import platform
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, final

from noneg._version import __version__
from noneg.images import Images
from noneg.training.hardware import Hardware
from noneg.training.precision import PrecisionChoice

_LIBRARIES = ("torch", "torchvision", "timm", "lightning-fabric", "numpy")


@final
@dataclass(frozen=True)
class Provenance:
    """What config.yaml does not say about a run.

    Args:
        command: as it was typed when the run was first started.
        started: ISO 8601, UTC; of the last start, if the run was resumed.
        seconds: of training, over all its starts; 0 until it is finished.
        hardware: device and precision, and why.
        precision: what was chosen, how the gradient check ended, and the measured speeds.
        versions: of noneg, Python and the libraries that compute.
        data: description, images, skipped, channels, stored_size (pixels), classes (or None).
    """

    command: str
    started: str
    seconds: float
    hardware: str
    precision: dict[str, Any]
    versions: dict[str, str]
    data: dict[str, Any]


def describe_provenance(
    images: Images,
    hardware: Hardware,
    precision: PrecisionChoice,
    command: str | None,
    earlier: Mapping[str, Any] | None,
) -> Provenance:
    """What is known before the first step.

    Args:
        images: of the run.
        hardware: it computes on.
        precision: it computes in.
        command: that started it, if it was the command line.
        earlier: run.json of a run that is resumed.
    """
    return Provenance(
        command=str((earlier or {}).get("command") or command or python_command()),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=0.0,
        hardware=f"{hardware.description}: {precision.reason}; "
        f"{platform.processor() or platform.machine()}, {platform.system()}",
        precision=asdict(precision),
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


def python_command() -> str:
    """How this Python program was started."""
    program = sys.argv[0] if sys.argv else ""
    if not Path(program).is_file():
        return "noneg.train(...) in an interactive session"
    return shlex.join(["python", *sys.argv])
