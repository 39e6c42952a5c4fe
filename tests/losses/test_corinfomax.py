"""CorInfoMax against its formula in float64, over several steps; closed forms and gradients."""

from math import log

import numpy as np
import pytest
import torch
from test_contract import build
from torch import Tensor

from noneg.errors import NonegError
from noneg.losses import corinfomax, running_covariance
from noneg.methods.base import Embeddings


def random_views(batch: int, width: int, views: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(views, batch, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("views", [2, 4])
def test_corinfomax_is_the_papers_over_three_steps(views: int) -> None:
    """A running mean and covariance of each branch; those of the new batch have most weight."""
    method = build(
        "corinfomax", projector=(8, 3), decay=0.2, epsilon=1e-4, invariance=250.0
    ).double()
    means, R = [np.zeros(3)] * 2, [np.eye(3)] * 2
    for step in range(3):
        z = random_views(7, 3, views, seed=step) + 0.5
        unit = z.numpy() / np.linalg.norm(z.numpy(), axis=2, keepdims=True)
        expected = {}
        for branch in (0, 1):
            rows = np.concatenate([unit[v] for v in range(views) if v % 2 == branch])
            means[branch] = 0.2 * means[branch] + 0.8 * rows.mean(axis=0)
            centered = rows - means[branch]
            R[branch] = 0.2 * R[branch] + 0.8 * centered.T @ centered / len(rows)
            determinant = np.linalg.det(R[branch] + 1e-4 * np.eye(3))
            expected[f"log_determinant_{branch + 1}"] = -np.log(determinant) / 3
        pairs = [(a, b) for a in range(views) for b in range(a + 1, views)]
        apart = np.mean([((unit[a] - unit[b]) ** 2).mean() for a, b in pairs])
        expected["invariance"] = 250 * apart
        loss = method.objective(Embeddings(h=z, z=z))
        assert loss.terms.keys() == expected.keys()
        for name, value in expected.items():
            assert float(loss.terms[name]) == pytest.approx(float(value), rel=1e-9), name


def test_flat_and_dead_covariances() -> None:
    z = random_views(5, 4)
    flat = torch.eye(4, dtype=torch.float64).expand(2, 4, 4) / 4
    terms = corinfomax(z, flat, epsilon=0.0)
    assert float(terms["log_determinant_1"]) == pytest.approx(log(4))
    dead = corinfomax(z, torch.zeros_like(flat), epsilon=1e-8)
    assert float(dead["log_determinant_2"]) == pytest.approx(-log(1e-8))


@pytest.mark.parametrize(("batch", "rank"), [(64, 1), (64, 3), (8, 8)])
def test_embeddings_in_few_directions_have_a_loss_in_float32(batch: int, rank: int) -> None:
    """A collapse is a number, which the watchdog can report: 64 coordinates, `rank` directions."""
    method = build("corinfomax", projector=(8, 64))
    exact = build("corinfomax", projector=(8, 64)).double()
    for step in range(6):
        z = random_views(batch, rank, seed=step) @ random_views(rank, 64, 1, seed=9)[0]
        z = z.float().requires_grad_()
        terms = method.objective(Embeddings(h=z, z=z)).terms
        same = z.detach().double()
        expected = exact.objective(Embeddings(h=same, z=same)).terms
        for name, value in expected.items():
            assert float(terms[name].detach()) == pytest.approx(float(value), rel=1e-4), name
    (gradient,) = torch.autograd.grad(terms["log_determinant_1"], z)
    assert gradient.isfinite().all()
    assert float(terms["log_determinant_1"].detach()) > 10


def test_a_singular_covariance_is_refused_in_a_sentence() -> None:
    z = random_views(5, 4)
    with pytest.raises(NonegError, match="larger epsilon than 0"):
        corinfomax(z, torch.zeros(2, 4, 4, dtype=torch.float64), epsilon=0.0)
    z[0, 0] = torch.nan
    broken = torch.full((2, 4, 4), torch.nan, dtype=torch.float64)
    assert corinfomax(z, broken)["log_determinant_1"].isnan()


def test_gradient_flows_through_the_running_mean_and_covariance() -> None:
    z = random_views(6, 3).requires_grad_()
    old_mean, old = torch.full((3,), 0.2, dtype=torch.float64), torch.eye(3, dtype=torch.float64)

    def value(z: Tensor) -> Tensor:
        moved = [running_covariance(view, old_mean, old, decay=0.3)[1] for view in z]
        return torch.stack(list(corinfomax(z, torch.stack(moved)).values())).sum()

    assert torch.autograd.gradcheck(value, z)


@pytest.mark.parametrize("views", [2, 3])
def test_a_rotation_changes_nothing_if_the_first_covariance_has_no_direction(views: int) -> None:
    rotation = torch.linalg.qr(random_views(3, 3, seed=9)[0])[0]
    start = torch.diag(torch.tensor([1.0, 2.0, 4.0]))
    for first, same in ((torch.eye(3), True), (start, False)):
        plain, turned = (
            build("corinfomax", projector=(8, 3), decay=0.3).double() for _ in range(2)
        )
        for method in (plain, turned):
            method.covariance.copy_(first)
        for step in range(2):
            z = random_views(6, 3, views, seed=step) + 0.5
            expected = plain.objective(Embeddings(h=z, z=z)).terms
            actual = turned.objective(Embeddings(h=z, z=z @ rotation)).terms
            for name, value in expected.items():
                equal = float(actual[name]) == pytest.approx(float(value), rel=1e-9)
                assert equal == (same or name == "invariance"), name
