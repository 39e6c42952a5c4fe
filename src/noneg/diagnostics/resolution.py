"""The number format that meters compute in, and the precision of the embeddings' own format."""

import torch
from jaxtyping import Float
from torch import Tensor


def exact(z: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The embeddings in float64, without gradient, on a device that supports it."""
    # Apple's GPUs have no float64.
    return z.detach().to("cpu" if z.device.type == "mps" else z.device).double()


def resolution_of(z: Float[Tensor, "*shape"]) -> float:
    """The relative difference between neighboring numbers of the embeddings' type."""
    return torch.finfo(z.dtype).eps


def directions(z: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Unit vectors along the last axis, in float64; zero vectors stay zero."""
    z = exact(z)
    norm = torch.linalg.vector_norm(z, dim=-1, keepdim=True)
    u: Tensor = z / norm.where(norm != 0, 1)
    return u
