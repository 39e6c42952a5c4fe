"""Losses: pure functions of embeddings [views, batch, width]. They import torch alone."""

from noneg.losses.agreement import mean_squared_error, negative_cosine
from noneg.losses.barlow_twins import barlow_twins
from noneg.losses.vicreg import vicreg

__all__ = ["barlow_twins", "mean_squared_error", "negative_cosine", "vicreg"]
