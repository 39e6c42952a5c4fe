"""What every method is: `embed` works image by image, `objective` on the whole batch.

Between the two lies the seam where the engine gathers the embeddings of all ranks or chunks. So a
method never knows of ranks, chunks, precision or data.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class Embeddings:
    """What `embed` makes of V views of B images.

    Args:
        h: representation, the backbone's output, what users keep.
        z: projection, where the loss lives.
        p: prediction (BYOL, SimSiam), None elsewhere.
        t: target, without gradient (BYOL), None elsewhere.
        index: which images these are.
    """

    h: Float[Tensor, "views batch width"]
    z: Float[Tensor, "views batch projection"]
    p: Float[Tensor, "views batch projection"] | None = None
    t: Float[Tensor, "views batch projection"] | None = None
    index: Int[Tensor, "batch"] | None = None


@dataclass(frozen=True)
class Loss:
    """A loss, and the terms (weights applied) that it is made of."""

    value: Float[Tensor, ""]
    terms: Mapping[str, Float[Tensor, ""]]


@dataclass(frozen=True)
class Rate:
    """The learning rate of one submodule: a multiple of the run's, constant or on its schedule."""

    multiplier: float = 1.0
    constant: bool = False


class Method(nn.Module, ABC):
    """A backbone with its heads, and the objective they are trained by.

    A module in `noneg.methods` holds one final subclass, `Options` (a frozen dataclass whose
    defaults are the paper's) and `RECIPES` ("small" and "paper").
    """

    def __init__(self, backbone: nn.Module, rates: Mapping[str, Rate] | None = None) -> None:
        """Keep the backbone, and `rates`: submodule name -> learning rate, where it is special."""
        super().__init__()
        self.backbone = backbone
        self.rates = dict(rates or {})

    @abstractmethod
    def embed(self, views: tuple[Float[Tensor, "batch channels _ _"], ...]) -> Embeddings:
        """Everything that runs image by image (batch statistics of BatchNorm aside)."""

    @abstractmethod
    def objective(self, e: Embeddings) -> Loss:
        """Everything that needs the whole batch. `e` is in float32 (or float64)."""

    @abstractmethod
    def after_step(self, progress: float) -> None:
        """What moves once the optimizer has; `progress` is the share of the run done, 0 to 1."""

    def after_epoch(self) -> None:
        """What moves, after its last step, once every image has had its turn; most have nothing."""
