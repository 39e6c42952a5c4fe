"""The result of training: an encoder, and everything needed to use it.

On disk it is a directory of two files: `encoder.safetensors` (the backbone's weights, float32) and
`encoder.json` (`EncoderInfo`). Loading runs no code from them, and needs neither the training
configuration nor Lightning.
"""

import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, final, get_args

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import interpolate

from noneg._version import __version__
from noneg.errors import NonegError, printable
from noneg.files import all_or_none, read_fields, usual_mode, write_text
from noneg.images import ImageSource, Skipped, find_source, stream_images
from noneg.images.find import Data
from noneg.networks import Norm
from noneg.networks.backbones import build_backbone
from noneg.networks.own import allow, is_allowed, is_own, keep_module
from noneg.networks.pretrained import find_known, is_known, load_known
from noneg.progress import progress_bar
from noneg.views.policy import Interpolation

FORMAT = 3
"""Of `encoder.json`; higher if older versions would misread it. 2: `norm`. 3: `interpolation`."""

_MOST_VALUES = 2**26
"""Of an image, 4,729 pixels square with 3 channels: a file must not ask for all of the memory."""

WEIGHTS = "encoder.safetensors"
INFO = "encoder.json"


Precision = Literal["float32", "bfloat16"]
"""Of the network while it embeds. Images are prepared, and embeddings given, in float32."""


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


@final
@dataclass(frozen=True)
class EncoderInfo:
    """What is needed to use an encoder's weights, and where they come from.

    Attributes:
        backbone: a name that `noneg.networks.backbones.build_backbone` takes.
        channels: of the images.
        size: side of the backbone's square input, in pixels.
        stored_size: side at which images are decoded, in pixels; resized to `size` if different.
        mean: of each channel over the training images; white is 1.
        std: of each channel, likewise.
        features: D, the length of an embedding.
        method: name of the method that trained it.
        data: a description of the training images, as values for JSON.
        noneg: version of noneg that wrote it.
        created: date, as YYYY-MM-DD in UTC.
        scores: accuracies in [0, 1] of each probe, for the trained encoder and each baseline; None
            without labels.
        norm: "group" if GroupNorm replaces the backbone's BatchNorm.
        interpolation: how images are resized to `size`; always antialiased.
    """

    backbone: str
    channels: int
    size: int
    stored_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    features: int
    method: str
    data: dict[str, Any] = field(default_factory=dict)
    noneg: str = __version__
    created: str = field(default_factory=_today)
    scores: dict[str, Any] | None = None
    norm: Norm = "batch"
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        """Refuse values with which no image can be normalized."""
        if not len(self.mean) == len(self.std) == self.channels:
            raise NonegError(
                f"An encoder of {self.channels} channels needs one mean and one std each, but got "
                f"{len(self.mean)} and {len(self.std)}; give {self.channels} of both."
            )
        largest = max(self.size, self.stored_size)
        if self.channels * largest**2 > _MOST_VALUES:
            raise NonegError(
                f"An encoder's images have at most {_MOST_VALUES:,} values, but {self.channels} x "
                f"{largest} x {largest} are more; choose a smaller size."
            )
        if not all(map(math.isfinite, (*self.mean, *self.std))):
            raise NonegError(
                f"An encoder's mean and std are finite, but got {self.mean} and {self.std}; "
                "correct them."
            )
        if min(self.channels, self.size, self.stored_size, self.features) < 1 or min(self.std) <= 0:
            raise NonegError(
                f"An encoder's channels, sizes, features and std are above 0, but got channels "
                f"{self.channels}, sizes {self.size} and {self.stored_size}, features "
                f"{self.features}, std {self.std}; correct them."
            )


@final
class Encoder:
    """A backbone in evaluation mode, and how images are prepared for it.

    Args:
        module: float [B, C, S, S] -> [B, D]. It is put into evaluation mode and not copied: give
            a copy if its training continues.
        info: the format of the images.
        precision: float32 gives embeddings that can be compared between machines; bfloat16 is
            faster on processors with instructions for it, and about a hundredth as exact.
    """

    def __init__(
        self, module: nn.Module, info: EncoderInfo, precision: Precision = "float32"
    ) -> None:
        self.module = module.eval()
        self.info = info
        self.precision = precision

    def __repr__(self) -> str:
        """What it takes and gives, for a notebook or a console."""
        info = self.info
        side = f"{info.channels} x {info.size} x {info.size}"
        return f"Encoder({info.backbone}: images of {side} -> {info.features} features)"

    def in_precision(self, precision: Precision) -> "Encoder":
        """The same network, computing in another precision.

        Raises:
            NonegError: there is no such precision.
        """
        if precision not in get_args(Precision):
            raise NonegError(
                f"No precision '{precision}' to embed in: give {' or '.join(get_args(Precision))}."
            )
        return Encoder(self.module, self.info, precision)

    def embed(
        self,
        data: Data,
        *,
        batch_size: int = 256,
        device: str | torch.device = "auto",
        progress: bool = False,
        skip_unreadable: bool = False,
    ) -> Float32[np.ndarray, "images features"]:
        """One vector per image, in the order of the images.

        The images of a folder are ordered by path. An embedding depends only on its image, except
        for float rounding, which may differ between batch sizes and devices.

        Args:
            data: a folder, an array uint8 [N, H, W] or [N, H, W, C], a tensor [N, C, H, W], a
                Dataset, a file or a name: all that `noneg.images.find_source` accepts.
            batch_size: images per batch; decides the memory, not the result.
            device: "auto" is a GPU if there is one.
            progress: show a progress bar on stderr.
            skip_unreadable: leave out unreadable images, so there are fewer rows; `embed_stream`
                yields the names of the others.

        Returns:
            float32 [N, D].

        Raises:
            NonegError: the data cannot be found, or an image cannot be read.
        """
        source = find_source(data)
        embeddings = np.empty((len(source), self.info.features), dtype=np.float32)
        skipped: list[Skipped] = []
        filled = 0
        for _, block in self.embed_source(source, batch_size, device, progress, False, skipped):
            embeddings[filled : filled + len(block)] = block
            filled += len(block)
        if skipped and not skip_unreadable:
            raise NonegError(
                f"{len(skipped)} of the {len(source)} images of the {source.description} cannot be "
                f"read, the first {printable(skipped[0].name)} ({printable(skipped[0].reason)}): "
                "repair or remove them, or give skip_unreadable=True to leave them out."
            )
        return embeddings if filled == len(source) else embeddings[:filled].copy()

    def embed_stream(
        self,
        data: Data,
        *,
        batch_size: int = 256,
        device: str | torch.device = "auto",
        progress: bool = False,
        strict: bool = False,
    ) -> Iterator[tuple[list[str], Float32[np.ndarray, "batch features"]]]:
        """Like `embed`, batch by batch, in memory that does not grow with the number of images.

        Args:
            data: as for `embed`.
            batch_size: images per batch.
            device: "auto" is a GPU if there is one.
            progress: show a progress bar on stderr.
            strict: whether an unreadable image is an error; otherwise it is left out.

        Returns:
            An iterator over (names of the B images, float32 [B, D]): paths within the folder, or
            indices.

        Raises:
            NonegError: the data cannot be found, no image can be read, or with `strict` any image
                cannot be read.
        """
        source = find_source(data)
        for indices, block in self.embed_source(source, batch_size, device, progress, strict, []):
            yield [source.name(index) for index in indices], block

    def embed_pixels(
        self,
        pixels: UInt8[np.ndarray, "images channels side side"],
        *,
        batch_size: int = 256,
        device: str | torch.device = "auto",
    ) -> Float32[np.ndarray, "images features"]:
        """Like `embed`, for decoded images.

        Args:
            pixels: uint8 [N, C, S, S], of any S.
            batch_size: images per batch.
            device: "auto" is a GPU if there is one.

        Returns:
            float32 [N, D].

        Raises:
            NonegError: the images have another number of channels.
        """
        target = find_device(device)
        features = [
            self.pixels_to_features(
                torch.from_numpy(pixels[start : start + batch_size]).to(target)
            ).cpu()
            for start in range(0, len(pixels), batch_size)
        ]
        return torch.cat(features).numpy()

    def pixels_to_features(
        self, pixels: UInt8[Tensor, "batch channels side side"]
    ) -> Float32[Tensor, "batch features"]:
        """Embed decoded images, on their device.

        They are resized to `info.size` (antialiased), divided by 255 and normalized, in float32.

        Args:
            pixels: uint8 [B, C, S, S], of any S.

        Returns:
            float32 [B, D], on the same device, without gradient.

        Raises:
            NonegError: the images have another number of channels.
        """
        info = self.info
        if pixels.shape[1] != info.channels:
            raise NonegError(
                f"This encoder takes images of {info.channels} channels, but these have "
                f"{pixels.shape[1]}; convert them first."
            )
        device = pixels.device
        self.module.to(device)
        # Not inference_mode: a head could not be trained on its tensors.
        fast = self.precision == "bfloat16"
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=fast):
            images = normalized_images(pixels, info)
            features: Tensor = self.module(images)
            return features.float()

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write `encoder.safetensors` and `encoder.json`; they appear when both are complete.

        Raises:
            NonegError: they cannot be written.
        """
        with all_or_none(directory) as unfinished:
            self.write_files(unfinished)

    def write_files(self, directory: Path) -> None:
        """Write the two files straight into a directory; see `save`.

        Raises:
            NonegError: the info is not made of values for JSON.
            OSError, SafetensorError: they cannot be written.
        """
        # Copies, because safetensors refuses tensors that share memory.
        weights = {
            name: (value.float() if value.is_floating_point() else value)
            .detach()
            .cpu()
            .clone(memory_format=torch.contiguous_format)
            for name, value in self.module.state_dict().items()
        }
        fields = {"format": FORMAT, **dataclasses.asdict(self.info)}
        try:
            text = json.dumps(fields, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        except (TypeError, ValueError) as error:
            raise NonegError(
                f"The encoder's info cannot be written as JSON ({error}); give plain numbers, "
                f"text, lists and dicts."
            ) from error
        with usual_mode(directory / WEIGHTS):
            save_file(weights, directory / WEIGHTS, metadata={"format": "pt"})
        write_text(directory / INFO, text)

    def embed_source(
        self,
        source: ImageSource,
        batch_size: int,
        device: str | torch.device,
        progress: bool,
        strict: bool,
        skipped: list[Skipped],
        seen: Callable[[UInt8[np.ndarray, "batch channels stored stored"]], None] | None = None,
        images: range | None = None,
    ) -> Iterator[tuple[list[int], Float32[np.ndarray, "batch features"]]]:
        """Like `embed_stream`, for an `ImageSource`.

        Args:
            source: from `noneg.images.find_source`.
            batch_size: images per batch.
            device: "auto" is a GPU if there is one.
            progress: show a progress bar on stderr.
            strict: whether an unreadable image is an error.
            skipped: images that are left out are appended to this list.
            seen: called with the pixels of each batch.
            images: consecutive ones, by their place in the source; by default all.

        Returns:
            An iterator over (the B indices in the source, float32 [B, D]).

        Raises:
            NonegError: no image of the source can be read, or with `strict` any image cannot be
                read.
        """
        target = find_device(device)
        batches = stream_images(
            source,
            channels=self.info.channels,
            size=self.info.stored_size,
            batch_size=batch_size,
            strict=strict,
            on_skip=skipped.append,
            images=images,
        )
        first, count = (0, len(source)) if images is None else (images.start, len(images))
        with progress_bar(total=count, desc="embedding", shown=progress) as bar:
            for pixels, indices in batches:
                if seen is not None:
                    seen(pixels)
                yield (
                    indices,
                    self.pixels_to_features(torch.from_numpy(pixels).to(target)).cpu().numpy(),
                )
                # Images that are left out count as well.
                bar.update(indices[-1] + 1 - first - bar.done)


def normalized_images(
    pixels: UInt8[Tensor, "batch channels stored stored"], info: EncoderInfo
) -> Float32[Tensor, "batch channels side side"]:
    """Resized to `info.size` (`info.interpolation`, antialiased), divided by 255 and normalized."""
    images = pixels.to(torch.float32) / 255
    if pixels.shape[-1] != info.size:
        side = (info.size, info.size)
        images = interpolate(images, size=side, mode=info.interpolation, antialias=True)
        if info.interpolation == "bicubic":
            # It overshoots at edges.
            images = images.clamp(0, 1)
    mean = torch.tensor(info.mean, dtype=torch.float32, device=pixels.device)[:, None, None]
    std = torch.tensor(info.std, dtype=torch.float32, device=pixels.device)[:, None, None]
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def load(source: str | os.PathLike[str], *, backbone: str | nn.Module | None = None) -> Encoder:
    """Load an encoder, on the CPU.

    Loading runs no code that the encoder brings along. If its backbone is a network of one's own,
    the caller has to name it.

    Args:
        source: directory of an encoder, or of a run, which contains `encoder/`; or "timm:NAME" or
            "local-dir:FOLDER" for a network as it was trained elsewhere.
        backbone: the network, if it is one's own: "package.module:function" as in training, or a
            module of the same kind, which is copied.

    Raises:
        NonegError: there is no encoder, a file is damaged, or a newer noneg wrote it.
    """
    if is_known(os.fspath(source)):
        return load_untouched(os.fspath(source))
    directory = Path(source).expanduser()
    if not (directory / INFO).exists() and (directory / "encoder").is_dir():
        directory = directory / "encoder"
    for name in (INFO, WEIGHTS):
        if not (directory / name).is_file():
            raise NonegError(
                f"There is no encoder in {printable(os.fspath(source))}: {name} is missing; give "
                "the directory of a run or of an encoder, or timm:NAME."
            )
    info = _allowed(read_encoder_info(directory), backbone, directory)
    try:
        weights = load_file(directory / WEIGHTS)
    except (SafetensorError, OSError, ValueError, LookupError, RuntimeError) as error:
        raise NonegError(
            f"{printable(str(directory / WEIGHTS))} is damaged ({error}): copy it again or train "
            f"again."
        ) from error
    # The initial weights are overwritten, so sampling them must not change the random state.
    with torch.random.fork_rng(devices=[]):
        module = build_backbone(
            info.backbone, channels=info.channels, size=info.size, norm=info.norm
        )
    try:
        module.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise NonegError(
            f"The weights in {printable(str(directory))} do not fit its backbone {info.backbone} "
            f"({reason}): the two files belong to different encoders, or timm has changed it."
        ) from error
    if module.num_features != info.features:
        raise NonegError(
            f"{printable(str(directory / INFO))} says {info.features} features, but backbone "
            f"{info.backbone} gives {module.num_features}: restore the file as it was written."
        )
    return Encoder(module, info)


def load_untouched(
    source: str, *, backbone: str = "auto", channels: int = 3, size: int | None = None
) -> Encoder:
    """A network as it was trained elsewhere, and how images are prepared for it.

    Args:
        source: see `noneg.networks.pretrained.find_known`.
        backbone: a name of timm's, for a file of weights.
        channels: of the images.
        size: side of the images in pixels; by default that of the images it was trained on.

    Raises:
        NonegError: the weights cannot be found, downloaded or read, or do not fit.
    """
    known = find_known(source, backbone)
    size = size or known.size
    module, _ = load_known(known, channels=channels, size=size)
    mean, std = known.normalization(channels) or ((0.5,) * channels, (0.25,) * channels)
    features = module.num_features
    assert isinstance(features, int)
    return Encoder(
        module,
        EncoderInfo(
            backbone=known.backbone,
            channels=channels,
            size=size,
            stored_size=size,
            mean=mean,
            std=std,
            features=features,
            method="none",
            data={"description": known.describe()},
            interpolation=known.interpolation,
        ),
    )


def _allowed(info: EncoderInfo, backbone: str | nn.Module | None, directory: Path) -> EncoderInfo:
    """The info, whose backbone may be built: an encoder's files must not decide what code runs."""
    if isinstance(backbone, nn.Module):
        return replace(info, backbone=keep_module(backbone))
    if backbone is not None and is_own(backbone):
        allow(backbone)
        return replace(info, backbone=backbone)
    if is_own(info.backbone) and not is_allowed(info.backbone):
        raise NonegError(
            f"the encoder in {printable(str(directory))} says that its network is made by "
            f"{printable(info.backbone)}, which is code: if you trust it, give --backbone "
            f"{printable(info.backbone)}, or backbone= in Python"
        )
    return info


def read_encoder_info(directory: Path) -> EncoderInfo:
    """The description of an encoder in its directory.

    Raises:
        NonegError: it is damaged, or a newer noneg wrote it.
    """
    path = directory / INFO
    shown = printable(str(path))
    try:
        fields = read_fields(path)
    except (ValueError, OSError) as error:
        raise NonegError(f"{shown} is damaged ({error}): copy it again or train again.") from error
    version = fields.pop("format", None)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise NonegError(
            f"{shown} does not describe an encoder: it has no format number; copy it again."
        )
    if version > FORMAT:
        raise NonegError(
            f"{shown} has format {version}, which a newer noneg wrote "
            f"({fields.get('noneg', 'version unknown')}): upgrade noneg."
        )
    if version == 1:
        fields["norm"] = "batch"
    if version < 3:
        fields["interpolation"] = "bilinear"
    known = {field.name: field for field in dataclasses.fields(EncoderInfo)}
    unknown, missing = sorted(fields.keys() - known.keys()), sorted(known.keys() - fields.keys())
    if unknown or missing:
        fault = f"has unknown fields {unknown}" if unknown else f"lacks the fields {missing}"
        raise NonegError(f"{shown} {fault}: restore it as noneg wrote it.")
    for name, kind in _JSON_KINDS.items():
        value = fields[name]
        is_list_of_numbers = isinstance(value, list) and all(
            isinstance(entry, int | float) and abs(entry) < 1e30 for entry in value
        )
        # JSON's true is a bool, and so an int in Python.
        right = isinstance(value, kind) and not isinstance(value, bool)
        if not right or (kind is list and not is_list_of_numbers):
            raise NonegError(f"{shown} has {name} = {value!r}: restore it as noneg wrote it.")
    for name, choices in (("norm", Norm), ("interpolation", Interpolation)):
        if fields[name] not in get_args(choices):
            raise NonegError(
                f"{shown} has {name} = {fields[name]!r}: restore it as noneg wrote it."
            )
    for name in ("mean", "std"):
        fields[name] = tuple(float(entry) for entry in fields[name])
    return EncoderInfo(**fields)


_JSON_KINDS: dict[str, Any] = {
    "backbone": str,
    "channels": int,
    "size": int,
    "stored_size": int,
    "mean": list,
    "std": list,
    "features": int,
    "method": str,
    "data": dict,
    "noneg": str,
    "created": str,
    "scores": dict | None,
    "norm": str,
    "interpolation": str,
}


def find_device(wanted: str | torch.device) -> torch.device:
    """The named device; for "auto" a GPU if there is one, else the CPU.

    Raises:
        NonegError: there is no such device.
    """
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise NonegError(
            f"Device {str(wanted)!r} cannot be used here ({str(error).splitlines()[0]}): choose "
            f"auto or cpu."
        ) from error
    return device
