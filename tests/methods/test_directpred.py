"""Predictors that are computed, not trained: DirectPred and DirectCopy."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_contract import build, make_views, train_briefly
from torch import Tensor

import noneg
from noneg.commands.evaluate import evaluate_run
from noneg.methods.base import Method
from noneg.methods.directpred import directcopy_predictor, directpred_predictor
from noneg.training.config import load_config
from noneg.training.step import compute_gradient

PREDICTORS = {"eigenvalues": directpred_predictor, "copy": directcopy_predictor}
both = pytest.mark.parametrize("kind", PREDICTORS)


def directpred(kind: str, **options: object) -> Method:
    return build("directpred", predictor=kind, **options)


def random_correlation(width: int = 6, rank: int = 6, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(40, rank, generator=generator, dtype=torch.float64)
    mix = torch.randn(rank, width, generator=generator, dtype=torch.float64)
    return (z @ mix).T @ (z @ mix) / 40


def of_the_papers(kind: str, correlation: np.ndarray, epsilon: float) -> np.ndarray:
    if kind == "copy":
        norm = np.sqrt((correlation**2).sum())
        return correlation / norm + epsilon * np.eye(len(correlation))
    # By singular vectors, direction by direction.
    vectors, values, _ = np.linalg.svd(correlation)
    return sum(
        (np.sqrt(value / values.max()) + epsilon) * np.outer(vector, vector)
        for value, vector in zip(values, vectors.T, strict=True)
    )


@both
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_the_predictor_is_the_papers(kind: str, epsilon: float) -> None:
    correlation = random_correlation()
    expected = of_the_papers(kind, correlation.numpy(), epsilon)
    np.testing.assert_allclose(PREDICTORS[kind](correlation, epsilon), expected, atol=1e-12)


@both
def test_closed_forms(kind: str) -> None:
    diagonal = torch.diag(torch.tensor([4.0, 1.0, 0.0]))
    shares = [1.0, 0.5, 0.0] if kind == "eigenvalues" else [4 / 17**0.5, 1 / 17**0.5, 0.0]
    expected = torch.diag(torch.tensor(shares) + 0.1)
    torch.testing.assert_close(PREDICTORS[kind](diagonal, 0.1), expected)
    # No correlation yet.
    zeros = torch.zeros(3, 3)
    torch.testing.assert_close(PREDICTORS[kind](zeros, 0.1), 0.1 * torch.eye(3))


@both
def test_scale_changes_nothing_and_a_rotation_commutes(kind: str) -> None:
    correlation, predictor_of = random_correlation(), PREDICTORS[kind]
    predictor = predictor_of(correlation, 0.1)
    torch.testing.assert_close(predictor_of(1e3 * correlation, 0.1), predictor)
    turn = torch.linalg.qr(random_correlation(seed=1))[0]
    turned = predictor_of(turn @ correlation @ turn.T, 0.1)
    torch.testing.assert_close(turned, turn @ predictor @ turn.T)


def test_roots_of_zero_eigenvalues_stay_small_in_float32() -> None:
    """Rank 20 of 256: a decomposition in float32 would be wrong by 2e-4 or more."""
    correlation = random_correlation(256, 20)
    exact = directpred_predictor(correlation, 0.0)
    rounded = directpred_predictor(correlation.float(), 0.0)
    assert float((rounded - exact).abs().max()) < 1e-4
    assert bool(torch.isfinite(rounded).all())


def correlation_of(z: Tensor) -> Tensor:
    flat = z.detach().double().flatten(0, 1)
    return flat.T @ flat / len(flat)


@both
def test_the_running_correlation_and_the_next_steps_predictor(kind: str) -> None:
    method = directpred(kind, rho=0.3, epsilon=0.1)
    expected = torch.zeros(16, 16, dtype=torch.float64)
    for step in range(3):
        before = method.predictor.clone()
        _, e = compute_gradient(method, make_views(seed=step), torch.arange(12))
        assert e.p is not None
        # The predictor changes only in after_step; the correlation is uncentered, of both views.
        torch.testing.assert_close(e.p, e.z @ before)
        assert torch.equal(method.predictor, before)
        expected = 0.3 * expected + 0.7 * correlation_of(e.z)
        method.after_step(0.5)
        torch.testing.assert_close(method.correlation.double(), expected, rtol=1e-4, atol=1e-6)
        predictor = of_the_papers(kind, expected.numpy(), 0.1)
        np.testing.assert_allclose(method.predictor.numpy(), predictor, atol=2e-3)
    assert not torch.equal(method.predictor, torch.eye(16))


@both
def test_the_first_predictor_is_the_identity_and_none_is_trained(kind: str) -> None:
    method = directpred(kind)
    e = method.embed(make_views())
    assert e.p is not None
    torch.testing.assert_close(e.p, e.z)
    assert not any("predictor" in key for key, _ in method.named_parameters())
    assert {"predictor", "correlation", "steps"} <= method.state_dict().keys()


@both
def test_it_is_computed_at_the_given_interval(kind: str) -> None:
    method = directpred(kind, every=3)
    changed = []
    for _ in range(6):
        before = method.predictor.clone()
        train_briefly(method, 1)
        changed.append(not torch.equal(method.predictor, before))
    assert changed == [False, False, True] * 2


@both
def test_the_target_may_be_the_online_network(kind: str) -> None:
    method = directpred(kind, target="copy")
    assert isinstance(method, Method)
    assert method.target is None
    e = method.embed(make_views())
    assert e.t is not None
    assert torch.equal(e.t, e.z)
    assert not e.t.requires_grad


@both
def test_the_target_follows_by_tau(kind: str) -> None:
    method = directpred(kind, tau=0.9)
    with torch.no_grad():
        for parameter in method.target.parameters():
            parameter.zero_()
    method.after_step(0.3)
    online = torch.nn.Sequential(method.backbone, method.projector)
    for one, other in zip(method.target.parameters(), online.parameters(), strict=True):
        torch.testing.assert_close(one, 0.1 * other.detach())


def test_runs_of_the_former_method_directcopy_are_evaluated_as_before(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
    settings = {"epochs": 1, "batch_size": 8, "evaluate": False, "report": False}
    run = noneg.train(
        images,
        method="directpred",
        options={"predictor": "copy", "epsilon": 0.2, "projector": [24, 16]},
        out=str(tmp_path / "run"),
        **settings,
    ).directory
    np.savez(tmp_path / "images.npz", images=images)
    expected = evaluate_run(run, str(tmp_path / "images.npz"))
    # As it was written when DirectCopy was a method of its own.
    path = run / "config.yaml"
    lines = path.read_text().splitlines(keepends=True)
    text = "".join(line for line in lines if "predictor:" not in line)
    path.write_text(text.replace("method: directpred", "method: directcopy"))
    assert path.read_text().count("directcopy") == len(lines) - text.count("\n") == 1
    config = load_config(path)
    assert (config.options.predictor, config.options.epsilon) == ("copy", 0.2)
    actual = evaluate_run(run, str(tmp_path / "images.npz"))
    for meters, others in (
        (actual.meters, expected.meters),
        (actual.untrained_meters, expected.untrained_meters),
    ):
        for name, numbers in others.items():
            np.testing.assert_array_equal(list(meters[name].values()), list(numbers.values()))


def test_the_former_name_is_trained_as_directcopy() -> None:
    one, other = build("directcopy"), directpred("copy")
    assert train_briefly(one, 4) == train_briefly(other, 4)
    assert train_briefly(directpred("eigenvalues"), 4) != train_briefly(directpred("copy"), 4)


def test_isotropic_gradients_pass_around_the_predictor() -> None:
    """IsoLoss: the value is DirectPred's, the gradient that of z + sg(zW - z)."""
    plain, around = build("directpred"), build("directpred", isotropic=True)
    matrix = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    for method in (plain, around):
        method.predictor = matrix @ matrix.T / 16
    values, pulls = [], []
    for method in (plain, around):
        e = method.embed(make_views())
        loss = method.objective(e).value
        (at_z,) = torch.autograd.grad(loss, e.z, retain_graph=True)
        (at_p,) = torch.autograd.grad(loss, e.p)
        values.append(float(loss.detach()))
        pulls.append((at_z, at_p))
    assert values[0] == pytest.approx(values[1])
    torch.testing.assert_close(pulls[1][0], pulls[1][1])
    torch.testing.assert_close(pulls[0][0], pulls[0][1] @ (matrix @ matrix.T / 16))


@both
def test_isotropic_gradients_are_isoloss(kind: str) -> None:
    """W by eigendecomposition; the gradient lacks the factor W that the chain rule would give.

    DirectPred takes roots of the eigenvalues, over the largest one; DirectCopy scales them.
    """
    method = directpred(kind, isotropic=True, rho=0.7, epsilon=0.2).double()
    correlation = np.zeros((16, 16))
    for step in range(3):
        values, vectors = np.linalg.eigh(correlation)
        if step == 0:
            W = np.eye(16)
        elif kind == "eigenvalues":
            W = vectors @ np.diag(np.sqrt(values.clip(0) / values.max()) + 0.2) @ vectors.T
        else:
            W = vectors @ np.diag(values / np.sqrt((values**2).sum()) + 0.2) @ vectors.T
        e = method.embed(tuple(view.double() for view in make_views(seed=step)))
        z, t = e.z.detach().numpy(), e.t.numpy()
        cosines, expected = [], np.zeros_like(z)
        for view, other in ((0, 1), (1, 0)):
            for image in range(12):
                p, target = z[view, image] @ W, t[other, image]
                p_unit, t_unit = p / np.linalg.norm(p), target / np.linalg.norm(target)
                cosines.append(p_unit @ t_unit)
                across = t_unit - cosines[-1] * p_unit
                expected[view, image] = -4 * across / np.linalg.norm(p) / 24
        loss = method.objective(e).value
        assert float(loss.detach()) == pytest.approx(4 - 4 * np.mean(cosines), rel=1e-9)
        (gradient,) = torch.autograd.grad(loss, e.z)
        np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-6, atol=1e-9)
        flat = z.reshape(24, 16)
        correlation = 0.7 * correlation + 0.3 * flat.T @ flat / 24
        method.after_step(0.5)
