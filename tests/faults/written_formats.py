"""What versions of noneg wrote, kept as text: names, types and shapes, without the weights.

The weights are made again from their names, always the same. This keeps what this version writes,
once for each release, and it is never changed afterwards:

    python tests/faults/written_formats.py NAME
"""

import json
import math
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent / "formats"
SIDE = 16


def pixels() -> np.ndarray:
    """The images of the kept runs, uint8 [24, 16, 16, 3], without a random number."""
    number, y, x, channel = np.ogrid[:24, :SIDE, :SIDE, :3]
    return ((37 * number + (3 + number) * y + 11 * x + 53 * channel) % 256).astype(np.uint8)


def describe(value: Any) -> Any:
    """Values of a checkpoint for JSON: of tensors, only dtype and shape."""
    if isinstance(value, torch.Tensor):
        return {"dtype": str(value.dtype), "shape": list(value.shape)}
    if isinstance(value, dict):
        return {"items": [[describe(key), describe(each)] for key, each in value.items()]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [describe(each) for each in value]}
    return value


def rebuild(value: Any, name: str = "") -> Any:
    """What `describe` was given, with weights that depend on their names."""
    if not isinstance(value, dict):
        return value
    if "items" in value:
        return {rebuild(key): rebuild(each, f"{name}.{key}") for key, each in value["items"]}
    for kind in (list, tuple):
        if kind.__name__ in value:
            parts = value[kind.__name__]
            return kind(rebuild(each, f"{name}.{number}") for number, each in enumerate(parts))
    return tensor_of(name, value)


def tensor_of(name: str, about: dict[str, Any]) -> torch.Tensor:
    """A tensor of this dtype and shape; small, and positive where variances must be."""
    dtype, shape = getattr(torch, about["dtype"].removeprefix("torch.")), about["shape"]
    if not dtype.is_floating_point or not shape:
        # Numbers of batches and steps.
        return torch.full(shape, 3, dtype=dtype)
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    scale = 1.5 / math.prod(shape[1:]) ** 0.5 if len(shape) > 1 else 0.1
    values = torch.from_numpy(scale * generator.standard_normal(shape)).to(dtype)
    # Running variances, second moments of an optimizer, and what a norm multiplies with.
    if "var" in name or "sq" in name or (len(shape) == 1 and name.endswith("weight")):
        return values.abs() + 0.5
    return values


def write_weights(file: Path, names: dict[str, dict[str, Any]]) -> None:
    save_file({name: tensor_of(name, about) for name, about in names.items()}, file)


def make_encoder(kept: Path, place: Path, **fields: Any) -> Path:
    """The encoder of a kept version, with its weights made again, and some fields changed."""
    place.mkdir()
    info = json.loads((kept / "encoder.json").read_text()) | fields
    (place / "encoder.json").write_text(
        json.dumps({name: value for name, value in info.items() if value != "left out"})
    )
    write_weights(place / "encoder.safetensors", json.loads((kept / "weights.json").read_text()))
    return place


def keep(name: str, run: Path) -> None:
    """Keep the formats of a run of this version."""
    from noneg.records.directory import RunDirectory

    place = HERE / name
    place.mkdir(parents=True)
    directory = RunDirectory(run)
    for file in (directory.config_file, directory.provenance_file, directory.scores_file):
        (place / file.name).write_text(file.read_text())
    (place / "metrics.csv").write_text(directory.metrics.path.read_text())
    (place / "encoder.json").write_text((run / "encoder" / "encoder.json").read_text())
    classifier = run / "classes" / "classifier.json"
    (place / "classifier.json").write_text(classifier.read_text())
    state = torch.load(directory.last_checkpoint, weights_only=True)
    weights = load_file(run / "encoder" / "encoder.safetensors")
    for file, value in (("checkpoint", state), ("weights", weights)):
        described = describe(value)
        if file == "weights":
            described = dict(described["items"])
        (place / f"{file}.json").write_text(json.dumps(described) + "\n")


if __name__ == "__main__":
    import tempfile

    import noneg
    from noneg.classifier.classifier import Classifier

    with tempfile.TemporaryDirectory() as place:
        np.save(f"{place}/images.npy", pixels())
        np.save(f"{place}/images.labels.npy", np.arange(24) % 2)
        kept = noneg.train(
            f"{place}/images.npy",
            out=f"{place}/run",
            method="byol",
            size=SIDE,
            batch_size=8,
            steps=6,
            options={"projector": [16, 8]},
            precision="32-true",
            accelerator="cpu",
            report=False,
        )
        width = kept.encoder.info.features
        classifier = Classifier(kept.encoder, torch.ones(2, width), torch.zeros(2), ("a", "b"))
        classifier.save(kept.directory / "classes")
        keep(sys.argv[1], kept.directory)
        make_encoder(HERE / sys.argv[1], Path(place) / "again")
        h = noneg.load(Path(place) / "again").embed(pixels()[:2])
        values = json.dumps([[round(float(each), 6) for each in row[:4]] for row in h])
        (HERE / sys.argv[1] / "embedded.json").write_text(values + "\n")
