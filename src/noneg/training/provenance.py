"""run.json: when a run was made, by which command, and on which data, hardware and versions."""

import hashlib
import platform
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, final

import numpy as np

from noneg._version import __version__
from noneg.errors import printable
from noneg.images import Images
from noneg.images.source import evenly_spaced
from noneg.training.hardware import Hardware
from noneg.training.origin import Origin
from noneg.training.precision import PrecisionChoice

_LIBRARIES = ("torch", "torchvision", "timm", "lightning-fabric", "numpy")


@final
@dataclass(frozen=True)
class Provenance:
    """What config.yaml does not say about a run.

    Args:
        command: the command line that first started the run, as it was typed.
        started: time of the last start: ISO 8601, UTC.
        seconds: training time over all starts; 0 until the run is finished.
        hardware: device and precision, and the reason for the precision.
        precision: the chosen precision, the result of the gradient check, and the measured speeds.
        versions: of noneg, Python and the libraries for computing.
        data: description, images, skipped, digest (of the images), channels, stored_size (pixels),
            classes (or None).
        origin: the run that this one continues; None if it began with untrained weights.
    """

    command: str
    started: str
    seconds: float
    hardware: str
    precision: dict[str, Any]
    versions: dict[str, str]
    data: dict[str, Any]
    origin: Origin | None = None


def describe_provenance(
    images: Images,
    digest: str,
    hardware: Hardware,
    precision: PrecisionChoice,
    command: str | None,
    earlier: Mapping[str, Any] | None,
    origin: Origin | None = None,
) -> Provenance:
    """The provenance that is known before the first step.

    Args:
        images: the images of the run.
        digest: see `digest_of`.
        hardware: the devices of the run.
        precision: the precision of the run.
        command: the command line, if it started the run.
        earlier: run.json, if the run is resumed.
        origin: the run that this one continues.
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
            "digest": digest,
            "channels": images.pixels.shape[1],
            "stored_size": images.pixels.shape[-1],
            "classes": None if images.classes is None else len(images.classes),
        },
        origin=origin,
    )


def digest_of(images: Images) -> str:
    """Hexadecimal digits that are others for other images: of all names, and of 64 of the images.

    Times of change do not count, so that a copy on another machine has the same digest.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name in images.names:
        digest.update(printable(name).encode() + b"\0")
    for index in evenly_spaced(len(images.pixels)):
        digest.update(np.ascontiguousarray(images.pixels[index : index + 1]).data)
    return digest.hexdigest()


def python_command() -> str:
    """How this Python program was started."""
    program = sys.argv[0] if sys.argv else ""
    if not Path(program).is_file():
        return "noneg.train(...) in an interactive session"
    return shlex.join(["python", *sys.argv])
