"""FastSiam: SimSiam with the mean of the other views as its target."""

import numpy as np
import pytest
import torch
from test_contract import assert_same_gradients, build, make_views

from noneg.methods.base import Embeddings
from noneg.training.step import compute_gradient


def test_with_two_views_it_is_simsiam() -> None:
    fast, plain = build("fastsiam"), build("simsiam")
    plain.load_state_dict(fast.state_dict())
    loss, _ = compute_gradient(fast, make_views(), torch.arange(12))
    other, _ = compute_gradient(plain, make_views(), torch.arange(12))
    torch.testing.assert_close(loss.value, other.value)
    assert_same_gradients(fast, plain)


def test_the_target_is_the_mean_of_the_other_views_as_they_are() -> None:
    generator = torch.Generator().manual_seed(0)
    p, z = torch.randn(2, 4, 5, 3, generator=generator, dtype=torch.float64)
    z.requires_grad_()
    cosines = []
    for view in range(4):
        others = [z.detach().numpy()[other] for other in range(4) if other != view]
        for image in range(5):
            target = np.mean([each[image] for each in others], axis=0)
            one = p[view, image].numpy()
            cosines.append(one @ target / np.linalg.norm(one) / np.linalg.norm(target))
    loss = build("fastsiam").objective(Embeddings(h=z, z=z, p=p.requires_grad_())).value
    assert float(loss.detach()) == pytest.approx(-float(np.mean(cosines)))
    # The gradient stops at the targets.
    assert torch.autograd.grad(loss, (p, z), allow_unused=True)[1] is None


def test_equal_views_have_the_least_loss() -> None:
    """-1, whatever the lengths; views that differ cannot all point at the mean of the others."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(4, 5, 3, generator=generator, dtype=torch.float64)
    method, one = build("fastsiam"), z[:1].expand(4, -1, -1)
    for p in (one, 3 * one):
        assert float(method.objective(Embeddings(h=one, z=one, p=p)).value) == pytest.approx(-1)
    assert float(method.objective(Embeddings(h=z, z=z, p=z)).value) > -0.9


def test_the_gradient_of_four_views() -> None:
    generator = torch.Generator().manual_seed(0)
    p, z = torch.randn(2, 4, 3, 5, generator=generator, dtype=torch.float64)
    method = build("fastsiam")

    def value(p: torch.Tensor) -> torch.Tensor:
        return method.objective(Embeddings(h=z, z=z, p=p)).value

    assert torch.autograd.gradcheck(value, p.requires_grad_())
