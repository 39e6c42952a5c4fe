"""Known weights of timm's networks: downloaded, from timm's cache, a file or a directory.

Reading weights runs no code from them: safetensors, or torch.load with `weights_only=True`.
"""

import dataclasses
import json
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, final

import timm
import torch
from torch import Tensor, nn

from noneg.errors import NonegError, printable
from noneg.networks import (
    Norm,
    registered,  # noqa: F401  (its names are timm's then)
)
from noneg.networks.backbones import OURS, build_backbone, first_line, image_size_argument

TIMM, LOCAL = "timm", "local-dir:"

Names = Iterable[str]


@final
@dataclass(frozen=True)
class Known:
    """Weights that exist, and how the images were prepared for them.

    Attributes:
        source: as it was asked for.
        backbone: timm's name of the network.
        file: with the weights; None if timm downloads them.
        size: side of the images that the weights were trained on, in pixels.
        mean: of the three channels; white is 1. None if nothing says so.
        std: of each channel, likewise.
        interpolation: for resizing images, "bilinear" or "bicubic".
        license: as timm or the directory states it.
        settings: timm's own description, for its functions.
    """

    source: str
    backbone: str
    file: Path | None
    size: int
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    interpolation: Literal["bilinear", "bicubic"]
    license: str | None
    settings: dict[str, Any]

    def describe(self) -> str:
        """In words, with the license if it is known."""
        return f"{self.source} ({self.backbone}{f', {self.license}' if self.license else ''})"

    def normalization(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and std of each channel; one channel has those of the three on average.

        None if the weights do not say, or for other numbers of channels.
        """
        if self.mean is None or self.std is None:
            return None
        if channels == len(self.mean):
            return self.mean, self.std
        if channels == 1:
            return (sum(self.mean) / len(self.mean),), (sum(self.std) / len(self.std),)
        return None


@final
@dataclass(frozen=True)
class Fit:
    """What of some weights fits a network, and what does not.

    Attributes:
        loaded: number of the network's tensors that were found.
        missing: names of the network's tensors that were not.
        unused: names of tensors that the network has no place for, such as those of a classifier.
    """

    loaded: int
    missing: tuple[str, ...]
    unused: tuple[str, ...]

    def describe(self) -> str:
        """One line; empty if all fits."""
        parts = []
        if self.unused:
            parts.append(f"not used: {_some(self.unused)}")
        if self.missing:
            parts.append(f"not in the weights, and left as initialized: {_some(self.missing)}")
        return "; ".join(parts)


def is_known(source: str) -> bool:
    """Whether this names weights by timm's name, or a `local-dir:`."""
    return source == TIMM or source.startswith((f"{TIMM}:", LOCAL))


def find_known(source: str, backbone: str = "auto") -> Known:
    """Find weights without reading them.

    Args:
        source: "timm", the backbone's own; "timm:NAME"; "local-dir:FOLDER" in timm's layout; or a
            file, whose network is `backbone`.
        backbone: a name of timm's, or "auto".

    Raises:
        NonegError: there are no such weights, or it is not clear for which network.
    """
    if source == TIMM or source.startswith(f"{TIMM}:"):
        name = source.partition(":")[2] or backbone
        _require_timm(source, name)
        _require_same(source, name, backbone)
        if not timm.is_model_pretrained(name):
            raise NonegError(
                f"timm has no weights for {name}: choose another network (timm.list_pretrained() "
                "lists those that have them), or give a file"
            )
        return _known(source, name, None, _settings_of(name))
    if source.startswith(LOCAL):
        return _find_local(source, backbone)
    file = Path(source).expanduser()
    if not file.is_file():
        raise NonegError(
            f"there are no weights {printable(source)}: give timm, timm:NAME, local-dir:FOLDER, a "
            "file of weights (.safetensors, .pth), or the directory of a run or an encoder"
        )
    _require_timm(source, backbone)
    return _known(source, backbone, file, _settings_of(backbone))


def load_known(
    known: Known, *, channels: int, size: int, norm: Norm = "batch"
) -> tuple[nn.Module, Fit]:
    """The network with its known weights, for images of any number of channels and any size.

    timm adapts the first convolution to the channels, and position embeddings to the size.

    Args:
        known: from `find_known`.
        channels: of the images.
        size: side of the images in pixels.
        norm: as for `build_backbone`.

    Returns:
        A module as `build_backbone` gives it, and what fits.

    Raises:
        NonegError: the weights cannot be downloaded or read, or nothing of them fits.
    """
    with torch.random.fork_rng(devices=[]):
        module = build_backbone(known.backbone, channels=channels, size=size, norm=norm)
        if known.file is None:
            return module, _load_from_timm(module, known, channels, size)
    return module, _load_from_file(module, known, known.file, channels)


def copy_where_it_fits(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> Fit:
    """Copy tensors with the same name and shape into a module.

    Raises:
        NonegError: no tensor fits.
    """
    own = module.state_dict()
    fitting = {
        name: value
        for name, value in weights.items()
        if name in own and own[name].shape == value.shape
    }
    module.load_state_dict(fitting, strict=False)
    return _fit(own, fitting, weights, source)


def _load_from_timm(module: nn.Module, known: Known, channels: int, size: int) -> Fit:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            original = timm.create_model(
                known.backbone,
                pretrained=True,
                in_chans=channels,
                num_classes=0,
                **image_size_argument(known.backbone, size),
            )
    except Exception as error:
        raise NonegError(
            f"the weights of {known.backbone} are not in the cache and cannot be downloaded "
            f"({first_line(error)}): connect to the network, set HF_HOME to a cache that has "
            "them, or give a file"
        ) from error
    return copy_where_it_fits(module, original.state_dict(), known.source)


def _load_from_file(module: nn.Module, known: Known, file: Path, channels: int) -> Fit:
    weights = _read(file)
    own = module.state_dict()
    found: dict[str, Tensor] = {}
    adapted: list[str] = []

    def keep_what_fits(_module: nn.Module, state: dict[str, Tensor], *_rest: object) -> None:
        adapted.extend(state)
        for name in list(state):
            if name not in own or own[name].shape != state[name].shape:
                del state[name]
        found.update(state)

    # Position embeddings, and the names of other libraries, are adapted by the network's own.
    adapt = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    hook = module.register_load_state_dict_pre_hook(keep_what_fits)  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            timm.models.load_pretrained(
                module,
                {
                    **known.settings,
                    "state_dict": dict(weights),
                    "file": None,
                    "source": None,
                    # timm compares it with a number.
                    "label_offset": known.settings.get("label_offset") or 0,
                },
                num_classes=0,
                in_chans=channels,
                filter_fn=adapt,
                strict=False,
            )
    except Exception as error:
        raise NonegError(
            f"the weights in {printable(str(file))} cannot be used for {known.backbone} "
            f"({first_line(error)}): give the --backbone that they are of"
        ) from error
    finally:
        hook.remove()
    return _fit(own, found, dict.fromkeys([*adapted, *weights]), str(file), weights)


def _fit(own: Names, found: Names, given: Names, source: str, original: Names | None = None) -> Fit:
    """What fits, from names of tensors: the network's, those that fit, and all that were given."""
    own, found, given = ([name for name in names if _counts(name)] for names in (own, found, given))
    if not found:
        raise NonegError(
            f"nothing in {printable(source)} fits the network: its first tensors are "
            f"{_some(list(original or given))}, and the network's are {_some(own)}"
        )
    missing = tuple(name for name in own if name not in found)
    return Fit(len(found), missing, tuple(name for name in given if name not in found))


def _counts(name: str) -> bool:
    """BatchNorm's number of steps is in all networks, and says nothing."""
    return not name.endswith("num_batches_tracked")


def _read(file: Path) -> dict[str, Tensor]:
    try:
        weights = timm.models.load_state_dict(str(file), device="cpu", weights_only=True)
    except Exception as error:
        raise NonegError(
            f"{printable(str(file))} cannot be read as weights ({first_line(error)}): give a "
            "safetensors file, or a .pth that holds only tensors"
        ) from error
    tensors = {str(name): value for name, value in weights.items() if isinstance(value, Tensor)}
    if not tensors:
        raise NonegError(f"{printable(str(file))} holds no tensors: give a file of weights")
    return tensors


def _find_local(source: str, backbone: str) -> Known:
    folder = Path(source.removeprefix(LOCAL)).expanduser()
    config = folder / "config.json"
    try:
        described = json.loads(config.read_text(encoding="utf-8"))
        name = described["architecture"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NonegError(
            f"{printable(str(config))} does not describe a network of timm's "
            f"({first_line(error)}): give a folder that timm or the Hugging Face Hub wrote"
        ) from None
    _require_timm(source, name)
    _require_same(source, name, backbone)
    settings = described.get("pretrained_cfg", described)
    settings = settings if isinstance(settings, dict) else {}
    preferred = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
    names = [*preferred, *sorted(file.name for file in folder.glob("*.safetensors"))]
    files = [folder / each for each in names if (folder / each).is_file()]
    if not files:
        raise NonegError(
            f"{printable(str(folder))} has no weights: it needs one of {', '.join(preferred)}"
        )
    return _known(source, name, files[0], _settings_of(name) | settings)


def _known(source: str, backbone: str, file: Path | None, settings: dict[str, Any]) -> Known:
    try:
        mean, std = settings.get("mean"), settings.get("std")
        return Known(
            source=source,
            backbone=backbone,
            file=file,
            size=int((settings.get("input_size") or (3, 224, 224))[-1]),
            mean=None if mean is None else tuple(map(float, mean)),
            std=None if std is None else tuple(map(float, std)),
            # Nothing else is antialiased in torch.
            interpolation="bilinear" if settings.get("interpolation") == "bilinear" else "bicubic",
            license=settings.get("license"),
            settings=settings,
        )
    except (TypeError, ValueError, IndexError) as error:
        raise NonegError(
            f"{printable(source)} has a pretrained_cfg that cannot be read ({first_line(error)}): "
            "give a folder as timm or the Hugging Face Hub wrote it"
        ) from None


def _settings_of(name: str) -> dict[str, Any]:
    settings = timm.get_pretrained_cfg(name)
    return {} if settings is None else dataclasses.asdict(settings)


def _require_timm(source: str, name: object) -> None:
    if name == "auto" or name in OURS:
        raise NonegError(
            f"{printable(source)} does not say for which network: give --backbone, a name of "
            "timm's such as resnet18"
        )
    if not isinstance(name, str) or not timm.is_model(name):
        raise NonegError(
            f"timm has no network {name!r}, which {printable(source)} asks for: `noneg list "
            "backbones` shows all"
        )


def _require_same(source: str, name: str, backbone: str) -> None:
    # A tag behind the name says which of its weights, not which network.
    if backbone != "auto" and backbone.partition(".")[0] != name.partition(".")[0]:
        raise NonegError(
            f"{printable(source)} has weights of {name}, and --backbone is {backbone}: leave "
            "--backbone out"
        )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(map(printable, islice(names, 3)))
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
