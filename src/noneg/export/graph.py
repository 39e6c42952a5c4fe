"""What is exported, as one module: pictures in, features or probabilities out."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, final

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn

from noneg.classifier.classifier import Classifier
from noneg.encoder import Encoder, EncoderInfo
from noneg.views.policy import Interpolation
from noneg.views.resample import resampling_filter

Pixels = UInt8[Tensor, "batch channels side side"]
Output = Float32[Tensor, "batch width"]


@final
@dataclass(frozen=True, eq=False)
class Exported:
    """An encoder or a classifier, as exports need it.

    Attributes:
        info: of the encoder.
        module: float [B, C, S, S] -> [B, D] or [B, K], on the CPU.
        expected: what noneg computes for pictures.
        output: the name of the output.
        metadata: plain values that are written beside the graph.
        head: weight [K, D] and bias [K] of a classifier.
        classes: names of its classes.
    """

    info: EncoderInfo
    module: nn.Module
    expected: Callable[[Pixels], Output]
    output: Literal["features", "probabilities"]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    head: tuple[Float32[Tensor, "classes width"], Float32[Tensor, " classes"]] | None = None
    classes: tuple[str, ...] = ()


def exported(source: Encoder | Classifier) -> Exported:
    """What an encoder gives is its features; what a classifier gives is its probabilities."""
    if isinstance(source, Encoder):
        source.module.cpu()
        return Exported(
            source.info,
            source.module,
            source.pixels_to_features,
            "features",
            {"noneg": asdict(source.info)},
        )
    encoder = source.encoder
    encoder.module.cpu()

    def expected(pixels: Tensor) -> Tensor:
        return torch.from_numpy(source.probabilities(encoder.pixels_to_features(pixels).numpy()))

    return Exported(
        encoder.info,
        nn.Sequential(source.module(), nn.Softmax(dim=1)),
        expected,
        "probabilities",
        {"noneg": asdict(encoder.info), "classes": list(source.classes)},
        head=(source.weight / source.temperature, source.bias / source.temperature),
        classes=source.classes,
    )


def resampling_matrix(
    side: int | torch.SymInt, size: int, interpolation: Interpolation
) -> Float32[Tensor, "size side"]:
    """The weights of each old pixel in each new one, along one axis: torch's antialiased resize.

    Args:
        side: old pixels; it may be symbolic while a graph is made.
        size: new pixels.
        interpolation: the filter, which is at least as wide as a new pixel.
    """
    old = torch.arange(side, dtype=torch.float32)
    # A tensor, because a symbolic fraction is more than exporters can follow.
    scale = (old[-1] + 1) / size
    center = (torch.arange(size) + 0.5) * scale - 0.5
    distance = (old - center[:, None]).abs() / scale.clamp(min=1)
    weight = resampling_filter(distance, interpolation)
    return weight / weight.sum(dim=1, keepdim=True)


class Graph(nn.Module):
    """Resizing, normalization and network, like `Encoder.pixels_to_features`.

    Args:
        module: the network; it is not copied.
        info: of the encoder.
    """

    def __init__(self, module: nn.Module, info: EncoderInfo) -> None:
        """Keep mean and std as tensors of the graph."""
        super().__init__()
        self.module = module
        self.size, self.mode = info.size, info.interpolation
        self.register_buffer("mean", torch.tensor(info.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(info.std)[:, None, None])

    def forward(self, images: Pixels) -> Output:
        """The output for square pictures of any size."""
        # Products with matrices: not every tool has an antialiased resize, or the same one.
        resize = resampling_matrix(images.shape[2], self.size, self.mode)
        scaled = resize @ (images.float() / 255) @ resize.T
        if self.mode == "bicubic":
            scaled = scaled.clamp(0, 1)
        output: Tensor = self.module((scaled - self.get_buffer("mean")) / self.get_buffer("std"))
        return output
