"""Checks and conversions of a loss's input."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from noneg.errors import NonegError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def in_full_precision(loss: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorator: bfloat16 and float16 arguments become float32, and autocast is off.

    float64 stays float64. Gradients have the type of the arguments.
    """

    @wraps(loss)
    def widened(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        tensors = [each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)]
        with torch.autocast(tensors[0].device.type, enabled=False):
            return loss(
                *(_widen(each) for each in args),  # type: ignore[arg-type]
                **{name: _widen(each) for name, each in kwargs.items()},  # type: ignore[arg-type]
            )

    return widened


def _widen(value: object) -> object:
    if isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16):
        return value.float()
    return value


def to_float64(z: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The same numbers in float64; unchanged on Apple's GPUs, which have no float64."""
    return z if z.device.type == "mps" else z.double()


def check_views(name: str, z: Float[Tensor, "views batch width"]) -> None:
    """Check that there are at least two views to compare, and two images to have a variance.

    Raises:
        NonegError: fewer than 2 views or images.
    """
    views, batch = z.shape[:2]
    if views < 2:
        raise NonegError(f"{name} compares views of an image and needs at least 2, not {views}")
    if batch < 2:
        raise NonegError(
            f"{name} needs a batch of at least 2 images, not {batch}: raise the batch size, or "
            "drop the last batch of an epoch"
        )
