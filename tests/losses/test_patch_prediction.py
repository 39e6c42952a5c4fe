"""I-JEPA's loss against a transcription in float64, closed forms, gradients."""

import numpy as np
import pytest
import torch
from torch import Tensor

from noneg.losses import patch_prediction


def random_pair(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    p, t = torch.randn(2, 2, 3, 5, 8, generator=generator, dtype=torch.float64)
    return 2 * p, 3 * t + 1


def normalized(t: Tensor) -> np.ndarray:
    values = t.numpy()
    mean, variance = values.mean(axis=-1, keepdims=True), values.var(axis=-1, keepdims=True)
    return np.asarray((values - mean) / np.sqrt(variance + 1e-5))


def test_it_is_the_authors() -> None:
    p, t = random_pair()
    apart = np.abs(p.numpy() - normalized(t))
    # Both parts of the distance are in use.
    assert 0.2 < (apart < 1).mean() < 0.8
    expected = np.where(apart < 1, apart**2 / 2, apart - 0.5).mean()
    assert float(patch_prediction(p, t)) == pytest.approx(expected, rel=1e-12)


def test_predicting_normalized_targets_costs_nothing() -> None:
    _, t = random_pair()
    exact = torch.from_numpy(normalized(t))
    assert float(patch_prediction(exact, t)) < 1e-25
    assert float(patch_prediction(exact + 0.1, t)) == pytest.approx(0.1**2 / 2)
    assert float(patch_prediction(exact - 3, t)) == pytest.approx(2.5)
    # The targets themselves are another scale.
    assert float(patch_prediction(t, t)) > 0.5


def test_the_scale_and_the_mean_of_a_target_do_not_count() -> None:
    p, t = random_pair()
    assert float(patch_prediction(p, 1e3 * t - 7)) == pytest.approx(
        float(patch_prediction(p, t)), rel=1e-5
    )


def test_gradients() -> None:
    p, t = random_pair()
    p.requires_grad_()
    t.requires_grad_()
    patch_prediction(p, t).backward()
    assert t.grad is None
    assert torch.autograd.gradcheck(lambda p: patch_prediction(p, t), p)
