"""SSL-HSIC: which embeddings its estimators see; the estimators are tested with the loss."""

import numpy as np
import pytest
import torch
from test_contract import build
from torch import Tensor

from noneg.methods.base import Embeddings


def test_predictions_and_targets_are_four_views_of_unit_length() -> None:
    """The kernel's matrix by hand; the target's rows without gradient."""
    generator = torch.Generator().manual_seed(0)
    p, t = torch.randn(2, 2, 5, 3, generator=generator, dtype=torch.float64)
    p.requires_grad_()
    t.requires_grad_()
    loss = build("ssl_hsic", gamma=2.0, scale=0.5).objective(Embeddings(h=p, z=p, p=p, t=t))
    rows = torch.cat([p, t]).detach().numpy()
    rows = (rows / np.linalg.norm(rows, axis=2, keepdims=True)).reshape(20, 3)
    image = np.tile(np.arange(5), 4)
    distances = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
    K = 0.5 / np.sqrt(0.25 + distances)
    positive = (image[:, None] == image) & ~np.eye(20, dtype=bool)
    H = np.eye(20) - 1 / 20
    expected = K.mean() - K[positive].mean() + 2 * np.sqrt(np.trace(K @ H @ K @ H)) / 20
    assert float(loss.value.detach()) == pytest.approx(float(expected), rel=1e-9)
    gradients: tuple[Tensor | None, ...] = torch.autograd.grad(
        loss.value, (p, t), allow_unused=True
    )
    assert [each is not None for each in gradients] == [True, False]
