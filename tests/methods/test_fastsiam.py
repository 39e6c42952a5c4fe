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
