"""An encoder with a linear layer and the names of the classes.

On disk it is the directory of an encoder with two more files: `classifier.safetensors` and
`classifier.json`. Loading runs no code from them.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float32
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from noneg.encoder import Encoder, load
from noneg.errors import NonegError, printable
from noneg.files import all_or_none, read_fields, usual_mode, write_text
from noneg.images import Skipped, find_source
from noneg.images.find import Data

FORMAT = 1
WEIGHTS, INFO = "classifier.safetensors", "classifier.json"


@final
@dataclass(frozen=True, eq=False)
class Classifier:
    """Turns images into probabilities of classes.

    Attributes:
        encoder: its backbone may have been fine-tuned.
        weight: [K, D], of the linear layer on the encoder's features.
        bias: [K].
        classes: the name of each class.
        temperature: logits are divided by it, so that confidence is right on average (Guo et al.
            2017, arXiv 1706.04599, section 4.2).
        validation: what was measured on the images that were held out.
    """

    encoder: Encoder
    weight: Float32[Tensor, "classes width"]
    bias: Float32[Tensor, " classes"]
    classes: tuple[str, ...]
    temperature: float = 1.0
    validation: Mapping[str, Any] = field(default_factory=dict)

    def probabilities(
        self, features: Float32[np.ndarray, "images width"]
    ) -> Float32[np.ndarray, "images classes"]:
        """Probabilities of the classes, from the encoder's features."""
        logits = torch.from_numpy(features) @ self.weight.T + self.bias
        found: Float32[np.ndarray, "images classes"] = (
            (logits / self.temperature).softmax(dim=1).numpy()
        )
        return found

    def predict(
        self,
        data: Data,
        *,
        batch_size: int = 256,
        device: str | torch.device = "auto",
        progress: bool = False,
        strict: bool = False,
        skipped: list[Skipped] | None = None,
    ) -> Iterator[tuple[list[str], Float32[np.ndarray, "batch classes"]]]:
        """Names of images and their probabilities, batch by batch.

        Args:
            data: as for `Encoder.embed`.
            batch_size: images per batch.
            device: "auto" is a GPU if there is one.
            progress: show a progress bar on stderr.
            strict: whether an unreadable image is an error.
            skipped: images that are left out are appended to this list.

        Raises:
            NonegError: the data cannot be found, or no image can be read.
        """
        source, skipped = find_source(data), [] if skipped is None else skipped
        for indices, block in self.encoder.embed_source(
            source, batch_size, device, progress, strict, skipped
        ):
            names = [source.name(index) for index in indices]
            yield names, self.probabilities(block)

    def module(self) -> nn.Module:
        """Backbone and linear layer as one module, float [B, C, S, S] -> logits [B, K]."""
        head = nn.Linear(*self.weight.shape[::-1])
        head.load_state_dict(
            {"weight": self.weight / self.temperature, "bias": self.bias / self.temperature}
        )
        return nn.Sequential(self.encoder.module, head)

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write the encoder's two files and the classifier's; they appear when all are complete.

        Raises:
            NonegError: they cannot be written.
        """
        fields = {
            "format": FORMAT,
            "classes": list(self.classes),
            "temperature": self.temperature,
            "validation": dict(self.validation),
        }
        with all_or_none(directory) as unfinished:
            self.encoder.write_files(unfinished)
            layer = {"weight": self.weight.contiguous(), "bias": self.bias}
            with usual_mode(unfinished / WEIGHTS):
                save_file(layer, unfinished / WEIGHTS)
            text = json.dumps(fields, indent=2, ensure_ascii=False) + "\n"
            write_text(unfinished / INFO, text)


def load_classifier(
    directory: str | os.PathLike[str], *, backbone: str | nn.Module | None = None
) -> Classifier:
    """Load what `Classifier.save` wrote.

    Args:
        directory: of the classifier.
        backbone: as for `noneg.load`.

    Raises:
        NonegError: there is no classifier, a file is damaged, or a newer noneg wrote it.
    """
    place = Path(directory).expanduser()
    shown = printable(str(place))
    if not (place / INFO).is_file() or not (place / WEIGHTS).is_file():
        raise NonegError(
            f"there is no classifier in {shown}: give a directory that noneg finetune wrote"
        )
    encoder = load(place, backbone=backbone)
    try:
        fields = read_fields(place / INFO)
        version = fields["format"]
        if not isinstance(version, int) or version > FORMAT:
            raise NonegError(f"{shown} was written by a newer noneg: upgrade noneg")
        tensors = load_file(place / WEIGHTS)
        found = Classifier(
            encoder=encoder,
            weight=tensors["weight"].float(),
            bias=tensors["bias"].float(),
            classes=tuple(str(each) for each in fields["classes"]),
            temperature=float(fields["temperature"]),
            validation=dict(fields["validation"]),
        )
    except (
        *(OSError, ValueError, LookupError, TypeError, ArithmeticError, RuntimeError),
        SafetensorError,
    ) as error:
        raise NonegError(
            f"the classifier in {shown} is damaged ({printable(str(error))[:100]}): copy it again, "
            "or train it again"
        ) from None
    shape = (len(found.classes), encoder.info.features)
    fits = found.weight.shape == shape and found.bias.shape == shape[:1]
    is_finite = bool(found.weight.isfinite().all() and found.bias.isfinite().all())
    if not fits or not is_finite or not 0 < found.temperature < math.inf:
        raise NonegError(f"the classifier in {shown} does not fit its encoder: train it again")
    return found
