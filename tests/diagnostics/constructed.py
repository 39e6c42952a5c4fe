"""Embeddings whose spectrum is known exactly."""

import torch
from torch import Tensor


def with_singular_values(values: list[float], images: int, width: int, *, centered: bool) -> Tensor:
    """A float64 matrix with exactly these singular values; its columns sum to zero if centered."""
    generator = torch.Generator().manual_seed(0)
    rank = len(values)
    left = torch.randn(images, rank, generator=generator, dtype=torch.float64)
    if centered:
        left = left - left.mean(dim=0)
    left = torch.linalg.qr(left).Q
    right = torch.linalg.qr(torch.randn(width, rank, generator=generator, dtype=torch.float64)).Q
    return left * torch.tensor(values, dtype=torch.float64) @ right.T
