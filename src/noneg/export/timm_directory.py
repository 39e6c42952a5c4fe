"""A directory for `timm.create_model("local-dir:...")`, for transformers, and for the Hub."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from noneg.classifier.classifier import Classifier
from noneg.encoder import Encoder, normalized_images
from noneg.errors import NonegError
from noneg.export.card import model_card
from noneg.export.check import check
from noneg.export.graph import Exported, exported
from noneg.files import all_or_none, usual_mode, write_text
from noneg.networks.backbones import REGISTERED, image_size_argument
from noneg.networks.own import is_own
from noneg.networks.registered import registered_name

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"


def export_timm(
    encoder: Encoder | Classifier,
    directory: str | os.PathLike[str],
    *,
    license: str | None = None,
    verdict: Mapping[str, Any] | None = None,
) -> float:
    """Write weights, `config.json` and a model card, load them with timm, and compare.

    timm then prepares images as noneg does, but for how they are resized to the input's size.

    Args:
        encoder: the encoder, or a classifier; timm's network then has its linear layer.
        directory: it is made if there is none; its files of these names are replaced.
        license: of the weights, for the model card, such as "apache-2.0".
        verdict: of the training, from `verdict.json`, for the model card.

    Returns:
        The largest error of an output, relative to their root mean square.

    Raises:
        NonegError: timm cannot build the network, its features differ from the encoder's, or the
            files cannot be written.
    """
    source = exported(encoder)
    info = source.info
    backbone = (encoder if isinstance(encoder, Encoder) else encoder.encoder).module
    name, network, prefix = _find_in_timm(source)
    weights = {prefix + key: value for key, value in backbone.state_dict().items()}
    layer = network.pretrained_cfg.get("classifier")
    if source.head is not None:
        weights |= dict(zip((f"{layer}.weight", f"{layer}.bias"), source.head, strict=True))
    if {key: value.shape for key, value in weights.items()} != {
        key: value.shape for key, value in network.state_dict().items()
    }:
        raise NonegError(
            f"timm's {name} is not the network of this encoder, which noneg changed for images of "
            f"{info.size} pixels: use --format onnx"
        )
    weights = {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in weights.items()
    }
    settings = _settings(name, network, source, license)
    needs_noneg = name.startswith(REGISTERED)
    # Compared before it is moved: a directory that was good stays so until the new one is.
    with all_or_none(directory) as unfinished:
        with usual_mode(unfinished / WEIGHTS):
            save_file(weights, unfinished / WEIGHTS, metadata={"format": "pt"})
        write_text(unfinished / CONFIG, json.dumps(settings, indent=2) + "\n")
        write_text(unfinished / CARD, model_card(info, name, needs_noneg, license, verdict))
        return _compare(source, unfinished)


def _find_in_timm(source: Exported) -> tuple[str, Any, str]:
    """Timm's name, a network that it builds, and what its tensors' names begin with."""
    info = source.info
    if is_own(info.backbone):
        raise NonegError(
            f"{info.backbone} is a network of your own, which timm cannot build: use --format onnx"
        )
    if info.norm == "group":
        raise NonegError("timm cannot build networks with --norm group: use --format onnx")
    name, prefix = info.backbone.partition(".")[0], ""
    if registered := registered_name(info.backbone, info.size):
        name, prefix = registered, "backbone."
    network = timm.create_model(
        name,
        num_classes=len(source.classes),
        in_chans=info.channels,
        **image_size_argument(name, info.size),
    )
    return name, network, prefix


def _settings(name: str, network: Any, source: Exported, license: str | None) -> dict[str, Any]:
    """`config.json`, which timm and transformers read."""
    known, info = network.pretrained_cfg, source.info
    fixed = bool(image_size_argument(name, info.size))
    arguments: dict[str, Any] = {} if info.channels == 3 else {"in_chans": info.channels}
    return {
        "architecture": name,
        "num_classes": len(source.classes),
        "num_features": info.features,
        **({"label_names": list(source.classes)} if source.classes else {}),
        **({"model_args": arguments} if arguments else {}),
        "pretrained_cfg": {
            "input_size": [info.channels, info.size, info.size],
            "fixed_input_size": fixed,
            "interpolation": info.interpolation,
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": list(info.mean),
            "std": list(info.std),
            "num_classes": len(source.classes),
            "pool_size": None,
            # With a name here, timm would adapt the first layer to other numbers of channels.
            "first_conv": known.get("first_conv") if info.channels == 3 else None,
            "classifier": known.get("classifier"),
            **({"license": license} if license else {}),
        },
        **source.metadata,
    }


def _compare(source: Exported, place: Path) -> float:
    """Load it as others would."""
    channels = source.info.channels
    with torch.random.fork_rng(devices=[]):
        loaded = timm.create_model(f"local-dir:{place}", pretrained=True, in_chans=channels).eval()
        # Where somebody would train a classifier.
        timm.create_model(f"local-dir:{place}", pretrained=True, in_chans=channels, num_classes=7)

    def run(images: Tensor) -> Tensor:
        with torch.no_grad():
            output: Tensor = loaded(normalized_images(images, source.info))
        return output.softmax(dim=1) if source.classes else output

    return check(source, run, "timm", any_size=False)
