"""TiCo against its formula in float64, over several steps; closed forms and gradients."""

import numpy as np
import pytest
import torch
from test_contract import build
from torch import Tensor

from noneg.losses import second_moment, tico
from noneg.methods.base import Embeddings


def random_views(batch: int, width: int, views: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(views, batch, width, generator=generator, dtype=torch.float64)


def unit(z: np.ndarray) -> np.ndarray:
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


@pytest.mark.parametrize("views", [2, 3])
def test_tico_is_the_papers_over_three_steps(views: int) -> None:
    """Image by image, with the running matrix updated before it is used."""
    method = build("tico", rho=5.0, beta=0.6, projector=(8, 4)).double()
    C = np.zeros((4, 4))
    for step in range(3):
        z, t = random_views(6, 4, views, seed=step), random_views(6, 4, views, seed=9 + step)
        a, b = unit(z.numpy()), unit(t.numpy())
        B = sum(np.outer(row, row) for view in a for row in view) / (6 * views)
        C = 0.6 * C + 0.4 * B
        pairs = [(v, w) for v in range(views) for w in range(views) if v != w]
        agreement = np.mean([1 - a[v, i] @ b[w, i] for v, w in pairs for i in range(6)])
        contrast = np.mean([row @ C @ row for view in a for row in view])
        loss = method.objective(Embeddings(h=z, z=z, t=t))
        assert float(loss.terms["agreement"]) == pytest.approx(float(agreement), rel=1e-12)
        assert float(loss.terms["covariance"]) == pytest.approx(float(5 * contrast), rel=1e-12)
        assert float(loss.value) == pytest.approx(float(agreement + 5 * contrast), rel=1e-12)


def test_a_complete_collapse_ends_at_rho_without_a_gradient() -> None:
    method = build("tico", rho=8.0, beta=0.9, projector=(8, 4)).double()
    z = random_views(1, 4, 1).expand(2, 6, 4).clone().requires_grad_()
    for step in range(1, 60):
        loss = method.objective(Embeddings(h=z, z=z, t=z.detach()))
        assert float(loss.value.detach()) == pytest.approx(8 * (1 - 0.9**step))
    (gradient,) = torch.autograd.grad(loss.value, z)
    assert float(gradient.abs().max()) < 1e-12


def test_all_directions_alike_cost_rho_over_the_width() -> None:
    z = torch.eye(5, dtype=torch.float64).expand(2, 5, 5)
    C = second_moment(z)
    assert float(C.trace()) == pytest.approx(1)
    terms = tico(z, z, C, rho=8.0)
    assert float(terms["covariance"]) == pytest.approx(8 / 5)
    assert float(terms["agreement"]) == pytest.approx(0)


def test_length_changes_nothing_and_rotation_only_with_the_matrix() -> None:
    z, t = random_views(7, 4), random_views(7, 4, seed=1)
    rotation = torch.linalg.qr(random_views(4, 4, seed=2)[0])[0]
    C = second_moment(z)
    before = tico(z, t, C)
    turned = tico(z @ rotation, t @ rotation, rotation.T @ C @ rotation)
    for other in (tico(3 * z, 0.1 * t, C), turned):
        for name, value in other.items():
            assert float(value) == pytest.approx(float(before[name])), name


def test_gradient_flows_into_the_embeddings_alone() -> None:
    z = random_views(5, 3).requires_grad_()
    t, C = random_views(5, 3, seed=1).requires_grad_(), second_moment(random_views(5, 3))
    C.requires_grad_()
    value = torch.stack(list(tico(z, t, C).values())).sum()
    used = torch.autograd.grad(value, (z, t, C), allow_unused=True)
    assert [each is not None for each in used] == [True, False, False]
    for name in ("agreement", "covariance"):
        assert torch.autograd.gradcheck(lambda z, name=name: tico(z, t, C)[name], z)
