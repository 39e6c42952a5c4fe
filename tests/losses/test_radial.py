"""The lengths of embeddings against a Gaussian's: a transcription, the floor, gradients."""

from math import lgamma, log

import numpy as np
import pytest
import torch
from test_contract import build
from torch import Tensor

from noneg.losses import radial_divergence, variance_hinge, vicreg
from noneg.methods.base import Embeddings


def random_views(batch: int, width: int, views: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(views, batch, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("batch", "width"), [(3, 1), (10, 4)])
def test_it_is_the_papers(batch: int, width: int) -> None:
    z = random_views(batch, width).numpy()
    values = []
    for view in z:
        r = np.sort(np.linalg.norm(view, axis=1))
        m = round(batch**0.5)
        spacings = [(batch + 1) / m * (r[i + m] - r[i]) for i in range(batch - m)]
        values.append((r**2 / 2 - (width - 1) * np.log(r)).mean() - np.log(spacings).mean())
    constant = (width / 2 - 1) * log(2) + lgamma(width / 2)
    actual = float(radial_divergence(torch.from_numpy(z)))
    assert actual == pytest.approx(float(np.mean(values)) + constant, rel=1e-10)


@pytest.mark.parametrize("width", [2, 64])
def test_a_gaussian_has_no_divergence_and_other_lengths_have(width: int) -> None:
    z = random_views(20_000, width)
    assert abs(float(radial_divergence(z))) < 0.05
    assert float(radial_divergence(1.5 * z)) > 0.2
    sphere = torch.nn.functional.normalize(z, dim=2) * width**0.5
    assert float(radial_divergence(sphere)) > 2


@pytest.mark.parametrize("width", [2, 5])
@pytest.mark.parametrize("share", [0.5, 1.0, 2.0])
def test_one_length_for_all_costs_least_at_the_root_of_the_width_minus_1(
    width: int, share: float
) -> None:
    """Equal lengths r have no spacing, so what moves is r^2 / 2 - (d - 1) log r, r^2 = d - 1."""
    unit = torch.nn.functional.normalize(random_views(8, width), dim=2)
    best = (width - 1) ** 0.5
    z = (share * best * unit).requires_grad_()
    value = radial_divergence(z)
    above = (width - 1) * ((share**2 - 1) / 2 - log(share))
    least = float(radial_divergence(best * unit))
    assert float(value.detach()) - least == pytest.approx(above, abs=1e-9)
    (gradient,) = torch.autograd.grad(value, z)
    # Along each embedding; the mean is over 2 views of 8 images.
    torch.testing.assert_close(gradient, (share - 1 / share) * best * unit / 16)


def test_rotation_changes_nothing_and_the_gradient_is_finite_at_zero() -> None:
    z = random_views(9, 4)
    rotation = torch.linalg.qr(random_views(4, 4, seed=1)[0])[0]
    turned = radial_divergence(z @ rotation)
    assert float(turned) == pytest.approx(float(radial_divergence(z)))
    assert torch.autograd.gradcheck(radial_divergence, z.requires_grad_())
    zeros = torch.zeros(2, 5, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(radial_divergence(zeros), zeros)
    assert torch.isfinite(gradient).all()


def test_it_is_an_option_of_vicreg() -> None:
    z = random_views(9, 4)
    loss = build("vicreg", radial=100.0).objective(Embeddings(h=z, z=z))
    assert float(loss.terms["radial"]) == pytest.approx(100 * float(radial_divergence(z)))
    assert "radial" not in build("vicreg").objective(Embeddings(h=z, z=z)).terms


def test_the_variance_term_alone_is_vicregs_and_an_option_of_byol_and_simsiam() -> None:
    z = 0.5 * random_views(9, 4)
    terms = vicreg(z, variance=25.0)
    expected = float(terms["variance_1"] + terms["variance_2"])
    assert 25 * float(variance_hinge(z)) == pytest.approx(expected)
    p, t = random_views(9, 4, seed=1), random_views(9, 4, seed=2)
    for name in ("byol", "simsiam"):
        plain = build(name).objective(Embeddings(h=z, z=z, p=p, t=t))
        loss = build(name, variance=25.0).objective(Embeddings(h=z, z=z, p=p, t=t))
        assert float(loss.terms["variance"]) == pytest.approx(expected)
        assert float(loss.value) == pytest.approx(float(plain.value) + expected)
