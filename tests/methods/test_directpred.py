"""Predictors that are set, not trained: DirectPred and DirectCopy."""

import numpy as np
import pytest
import torch
from test_contract import build, make_views, train_briefly
from torch import Tensor

from noneg.methods import directcopy, directpred
from noneg.methods.base import Method
from noneg.training.step import compute_gradient

PREDICTORS = {"directpred": directpred.predictor_of, "directcopy": directcopy.predictor_of}
both = pytest.mark.parametrize("name", PREDICTORS)


def random_correlation(width: int = 6, rank: int = 6, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(40, rank, generator=generator, dtype=torch.float64)
    mix = torch.randn(rank, width, generator=generator, dtype=torch.float64)
    return (z @ mix).T @ (z @ mix) / 40


def of_the_papers(name: str, correlation: np.ndarray, epsilon: float) -> np.ndarray:
    if name == "directcopy":
        norm = np.sqrt((correlation**2).sum())
        return correlation / norm + epsilon * np.eye(len(correlation))
    # By singular vectors, one direction after the other.
    vectors, values, _ = np.linalg.svd(correlation)
    return sum(
        (np.sqrt(value / values.max()) + epsilon) * np.outer(vector, vector)
        for value, vector in zip(values, vectors.T, strict=True)
    )


@both
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_the_predictor_is_the_papers(name: str, epsilon: float) -> None:
    correlation = random_correlation()
    expected = of_the_papers(name, correlation.numpy(), epsilon)
    np.testing.assert_allclose(PREDICTORS[name](correlation, epsilon), expected, atol=1e-12)


@both
def test_closed_forms(name: str) -> None:
    diagonal = torch.diag(torch.tensor([4.0, 1.0, 0.0]))
    shares = [1.0, 0.5, 0.0] if name == "directpred" else [4 / 17**0.5, 1 / 17**0.5, 0.0]
    expected = torch.diag(torch.tensor(shares) + 0.1)
    torch.testing.assert_close(PREDICTORS[name](diagonal, 0.1), expected)
    # Nothing to go by.
    zeros = torch.zeros(3, 3)
    torch.testing.assert_close(PREDICTORS[name](zeros, 0.1), 0.1 * torch.eye(3))


@both
def test_scale_is_nothing_and_a_rotation_comes_along(name: str) -> None:
    correlation, predictor_of = random_correlation(), PREDICTORS[name]
    predictor = predictor_of(correlation, 0.1)
    torch.testing.assert_close(predictor_of(1e3 * correlation, 0.1), predictor)
    turn = torch.linalg.qr(random_correlation(seed=1))[0]
    turned = predictor_of(turn @ correlation @ turn.T, 0.1)
    torch.testing.assert_close(turned, turn @ predictor @ turn.T)


def test_roots_of_nothing_stay_small_in_float32() -> None:
    """Rank 20 of 256: a decomposition in float32 would be wrong by 2e-4 and more."""
    correlation = random_correlation(256, 20)
    exact = PREDICTORS["directpred"](correlation, 0.0)
    rounded = PREDICTORS["directpred"](correlation.float(), 0.0)
    assert float((rounded - exact).abs().max()) < 1e-4
    assert bool(torch.isfinite(rounded).all())


def correlation_of(z: Tensor) -> Tensor:
    flat = z.detach().double().flatten(0, 1)
    return flat.T @ flat / len(flat)


@both
def test_the_running_correlation_and_the_next_steps_predictor(name: str) -> None:
    method = build(name, rho=0.3, epsilon=0.1)
    expected = torch.zeros(16, 16, dtype=torch.float64)
    for step in range(3):
        before = method.predictor.clone()
        _, e = compute_gradient(method, make_views(seed=step), torch.arange(12))
        assert e.p is not None
        # Before the step the predictor is that of the steps before; uncentered, of both views.
        torch.testing.assert_close(e.p, e.z @ before)
        assert torch.equal(method.predictor, before)
        expected = 0.3 * expected + 0.7 * correlation_of(e.z)
        method.after_step(0.5)
        torch.testing.assert_close(method.correlation.double(), expected, rtol=1e-4, atol=1e-6)
        predictor = of_the_papers(name, expected.numpy(), 0.1)
        np.testing.assert_allclose(method.predictor.numpy(), predictor, atol=2e-3)
    assert not torch.equal(method.predictor, torch.eye(16))


@both
def test_the_first_predictor_is_the_identity_and_none_is_trained(name: str) -> None:
    method = build(name)
    e = method.embed(make_views())
    assert e.p is not None
    torch.testing.assert_close(e.p, e.z)
    assert not any("predictor" in key for key, _ in method.named_parameters())
    assert {"predictor", "correlation", "steps"} <= method.state_dict().keys()


@both
def test_it_is_set_every_so_many_steps(name: str) -> None:
    method = build(name, every=3)
    changed = []
    for _ in range(6):
        before = method.predictor.clone()
        train_briefly(method, 1)
        changed.append(not torch.equal(method.predictor, before))
    assert changed == [False, False, True] * 2


@both
def test_the_target_may_be_the_online_network(name: str) -> None:
    method = build(name, target="copy")
    assert isinstance(method, Method)
    assert method.target is None
    e = method.embed(make_views())
    assert e.t is not None
    assert torch.equal(e.t, e.z)
    assert not e.t.requires_grad


@both
def test_the_target_follows_by_tau(name: str) -> None:
    method = build(name, tau=0.9)
    with torch.no_grad():
        for parameter in method.target.parameters():
            parameter.zero_()
    method.after_step(0.3)
    online = torch.nn.Sequential(method.backbone, method.projector)
    for one, other in zip(method.target.parameters(), online.parameters(), strict=True):
        torch.testing.assert_close(one, 0.1 * other.detach())
