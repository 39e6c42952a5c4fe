"""The interface of every method: `embed` works image by image, `objective` on the whole batch.

Between the two, the training step gathers the embeddings of all ranks or chunks. A method therefore
knows nothing of ranks, chunks, precision or data.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from noneg.diagnostics import State
from noneg.randomness import hash_index


@dataclass(frozen=True)
class Embeddings:
    """The output of `embed` for V views of B images.

    Args:
        h: representation [V, B, D]: the backbone's output, which users keep.
        z: projection [V, B, K]: the input of the loss.
        p: prediction [V, B, P]; None for methods without one. P is K, or the number of prototypes.
        t: target [T, B, P] of the first T views, without gradient; None for methods without a
            target, and where all of z, or p, are targets (`own_targets`). Small crops have none
            (`large_views`), so T may be less than V.
        index: int64 [B], which images these are.
    """

    h: Float[Tensor, "views batch width"]
    z: Float[Tensor, "views batch projection"]
    p: Float[Tensor, "views batch prediction"] | None = None
    t: Float[Tensor, "targets batch prediction"] | None = None
    index: Int[Tensor, "batch"] | None = None


def large_views(
    views: tuple[Float[Tensor, "batch channels _ _"], ...],
) -> tuple[Float[Tensor, "batch channels _ _"], ...]:
    """The views from which targets are made: the first one, and those of its size that follow.

    With a policy of large and small crops, small ones learn from the large ones, but not the other
    way around (SwAV, 2006.09882, section 3.2).
    """
    side = views[0].shape[-1]
    return tuple(takewhile(lambda view: view.shape[-1] == side, views))


def own_targets(
    own: Float[Tensor, "views batch width"],
    views: tuple[Float[Tensor, "batch channels _ _"], ...],
) -> Float[Tensor, "targets batch width"] | None:
    """`t` of a method whose targets are its own z, or p, of the large views.

    None if all views are large, so that processes do not send each other the same numbers twice.
    """
    large = large_views(views)
    return None if len(large) == len(views) else own[: len(large)]


def means_of_others(
    targets: Float[Tensor, "targets batch width"], views: int
) -> Float[Tensor, "views batch width"]:
    """For each of `views` views, the mean of an image's targets that are of other views.

    Targets are of the first views, 2 or more (`large_views`); small crops have the mean of all.
    """
    total = targets.sum(dim=0)
    small = (total / len(targets)).expand(views - len(targets), -1, -1)
    return torch.cat([(total - targets) / (len(targets) - 1), small])


def random_order(e: Embeddings) -> Int[Tensor, "batch"]:
    """The positions of the batch's images in a random order.

    It depends on the images, not on their order in the batch. It differs between steps, and is the
    same on every process, like torch's generator.
    """
    key = int(torch.randint(2**62, ()))
    index = np.arange(e.z.shape[1]) if e.index is None else e.index.cpu().numpy()
    order = torch.from_numpy(np.argsort(hash_index(key, index, 1)[:, 0]))
    return order.to(e.z.device)


@dataclass(frozen=True)
class Loss:
    """A loss, and its terms with their weights applied; they add up to the loss."""

    value: Float[Tensor, ""]
    terms: Mapping[str, Float[Tensor, ""]]


class Failure(NamedTuple):
    """A kind of failure that only this method has, seen in a row of metrics.csv.

    Args:
        state: of the verdict. "not learning" is reported late in a run only.
        sentence: what happened, with the number that shows it.
    """

    state: State
    sentence: str


@dataclass(frozen=True)
class Rate:
    """The learning rate of a submodule: a multiple of the run's rate, constant or scheduled."""

    multiplier: float = 1.0
    constant: bool = False


@runtime_checkable
class HasTeacher(Protocol):
    """A method that learns from a frozen encoder; its options have a `teacher`."""

    def set_targets(self, features: Float[Tensor, "images width"]) -> None:
        """Called once before the first step, with the teacher's features of all images."""


class Method(nn.Module, ABC):
    """A backbone with its heads, and the objective that trains them.

    A module in `noneg.methods` holds one final subclass, `Options` (a frozen dataclass whose
    defaults are the paper's) and `RECIPES` ("small" and "paper"). It may hold two functions more:
    `failure(row, options)`, the `Failure` that a row of metrics.csv shows, or None; and
    `causes(state, options, batch_size)`, sentences on settings that may have led to a verdict.
    """

    def __init__(self, backbone: nn.Module, rates: Mapping[str, Rate] | None = None) -> None:
        """Register the backbone.

        Args:
            backbone: images [B, C, S, S] -> representations [B, D].
            rates: learning rates of submodules that do not use the run's, by submodule name.
        """
        super().__init__()
        self.backbone = backbone
        self.rates = dict(rates or {})

    @abstractmethod
    def embed(self, views: tuple[Float[Tensor, "batch channels _ _"], ...]) -> Embeddings:
        """Everything that runs image by image (except for the batch statistics of BatchNorm)."""

    def embed_in_step(
        self,
        views: tuple[Float[Tensor, "batch channels _ _"], ...],
        key: int,
        index: Int[Tensor, "batch"],
    ) -> Embeddings:
        """`embed`, as a training step calls it; for methods that draw random numbers for images.

        By default, `embed`. Masks, for example, are drawn by `noneg.randomness.uniform(key, index,
        count)`: then those of an image are the same in any batch, chunk or process.

        Args:
            views: as for `embed`.
            key: of the step, the same on every process.
            index: int64 [batch], the images' numbers in the data set.
        """
        return self.embed(views)

    @abstractmethod
    def objective(self, e: Embeddings) -> Loss:
        """Everything that needs the whole batch. `e` is in float32 (or float64)."""

    def meters(self, e: Embeddings) -> Mapping[str, float]:
        """Numbers for metrics.csv by which the method's own kind of failure shows.

        Called without gradient after the step, for steps that have a row.
        """
        return {}

    def begin_again(self) -> None:
        """Hook before the first step of a run that continues another: its schedule starts anew."""

    def after_step(self, progress: float) -> None:
        """Hook after each step of the optimizer, for example to update a moving average.

        Args:
            progress: share of the run that is done, in [0, 1].
        """

    def after_epoch(self) -> None:
        """Hook after the last step of each epoch."""
