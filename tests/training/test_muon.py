"""Muon: singular values near 1, Nesterov's momentum, AdamW everywhere else."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from noneg.training.muon import STEPS, Muon, orthogonalize


def with_singular_values(values: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(rows, len(values), generator=generator))
    right, _ = torch.linalg.qr(torch.randn(columns, len(values), generator=generator))
    return left @ torch.diag(values) @ right.T


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (16, 16)])
def test_keeps_singular_vectors_and_maps_singular_values_by_the_polynomial(
    shape: tuple[int, int],
) -> None:
    values = torch.linspace(0.02, 1, min(shape)).flip(0)
    result = orthogonalize(with_singular_values(values, *shape))
    x = (values / values.norm()).double()
    for _ in range(STEPS):
        x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5
    expected = with_singular_values(x.float(), *shape)
    torch.testing.assert_close(result, expected, atol=2e-4, rtol=1e-3)


def test_large_singular_values_become_about_one_and_zero_stays_zero() -> None:
    values = torch.linspace(0.3, 1, 8).flip(0)
    singular = torch.linalg.svdvals(orthogonalize(1e-5 * with_singular_values(values, 8, 30)))
    assert singular.min() > 0.6
    assert singular.max() < 1.3
    assert orthogonalize(torch.zeros(3, 5)).abs().max() == 0


def test_a_step_is_nesterovs_with_the_size_of_adamws_and_decoupled_decay() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(6, 2, 3, 3))
    start, momentum = weight.detach().clone(), torch.zeros(6, 18)
    optimizer = Muon(
        [{"params": [weight], "orthogonal": True, "weight_decay": 0.1}], 0.01, momentum=0.8
    )
    expected = start.reshape(6, 18)
    for _ in range(3):
        gradient = torch.randn(6, 18)
        weight.grad = gradient.reshape(6, 2, 3, 3).clone()
        optimizer.step()
        momentum = 0.8 * momentum + gradient
        update = orthogonalize(gradient + 0.8 * momentum)
        expected = expected * (1 - 0.01 * 0.1) - 0.01 * 0.2 * 18**0.5 * update
        torch.testing.assert_close(weight.detach().reshape(6, 18), expected, atol=1e-6, rtol=1e-5)


def test_groups_that_are_not_orthogonal_take_adamws_steps() -> None:
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(4, 3)) for _ in range(2))
    other = nn.Parameter(torch.ones(4, 3))
    muon = Muon([{"params": [ours]}, {"params": [other], "orthogonal": True}], 0.01)
    adamw = AdamW([theirs], lr=0.01)
    for _ in range(4):
        gradient = torch.randn(4, 3)
        ours.grad, theirs.grad, other.grad = gradient, gradient.clone(), gradient.clone()
        muon.step()
        adamw.step()
    assert ours.equal(theirs)
    assert not torch.allclose(other, theirs, atol=1e-3)


def test_its_state_can_be_saved_and_loaded() -> None:
    def make() -> tuple[list[nn.Parameter], Muon]:
        torch.manual_seed(0)
        weights = [nn.Parameter(torch.randn(4, 3, 3, 3)), nn.Parameter(torch.randn(5))]
        groups = [{"params": weights[:1], "orthogonal": True}, {"params": weights[1:]}]
        return weights, Muon(groups, 0.01)

    def go(weights: list[nn.Parameter], optimizer: Muon, seed: int) -> None:
        torch.manual_seed(seed)
        for weight in weights:
            weight.grad = torch.randn_like(weight)
        optimizer.step()

    weights, unbroken = make()
    go(weights, unbroken, 1)
    # state_dict() refers to the tensors that the next step changes.
    saved, copies = deepcopy(unbroken.state_dict()), [weight.detach().clone() for weight in weights]
    go(weights, unbroken, 2)
    resumed, optimizer = make()
    with torch.no_grad():
        for weight, copy in zip(resumed, copies, strict=True):
            weight.copy_(copy)
    optimizer.load_state_dict(saved)
    go(resumed, optimizer, 2)
    assert all(one.equal(other) for one, other in zip(weights, resumed, strict=True))
