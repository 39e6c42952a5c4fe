"""Two networks that share only an objective."""

import math
from typing import Any

import pytest
import torch
from test_contract import build, gradients, make_views, train_briefly
from torch.nn.functional import mse_loss

from noneg.methods.base import Embeddings
from noneg.methods.two_networks import Options, TwoNetworks
from noneg.networks.backbones import build_backbone
from noneg.training.step import compute_gradient

OBJECTIVES = pytest.mark.parametrize("objective", ["vicreg", "barlow_twins"])


def two_networks(**options: Any) -> TwoNetworks:
    method = build("two_networks", **options)
    assert isinstance(method, TwoNetworks)
    return method


def test_they_share_no_weight_and_begin_differently() -> None:
    method = two_networks()
    first = dict(method.backbone.named_parameters())
    second = dict(method.second.named_parameters())
    assert first.keys() == second.keys()
    pointers = [parameter.data_ptr() for parameter in method.parameters()]
    assert len(set(pointers)) == len(pointers)
    for name in ("convolution.weight", "mix.weight"):
        assert not torch.equal(first[name], second[name]), name


@pytest.mark.parametrize("name", ["small_convnet", "small_resnet", "vit_tiny_patch16_224"])
def test_the_second_begins_as_the_first_does(name: str) -> None:
    """Weights of the same spread, or the same constants: the layers' usual ones are others."""
    torch.manual_seed(0)
    first = build_backbone(name, channels=3, size=32)
    method = TwoNetworks(first, first.num_features, Options(projector=(8,)))
    other = {key: value.detach() for key, value in method.second.named_parameters()}
    begun = {key: value.detach() for key, value in first.named_parameters()}
    assert any(not torch.equal(value, other[key]) for key, value in begun.items())
    for key, value in begun.items():
        if value.std() > 0:
            assert float(other[key].std()) == pytest.approx(float(value.std()), rel=0.3), key
        else:
            assert torch.equal(other[key], value), key


def test_the_views_go_through_them_in_turn() -> None:
    method, views = two_networks().eval(), (*make_views(), *make_views(seed=5))
    e = method.embed(views)
    torch.testing.assert_close(e.h[2], method.backbone(views[2]))
    torch.testing.assert_close(e.h[3], method.second(views[3]))
    torch.testing.assert_close(e.z[0], method.projector(method.backbone(views[0])))
    torch.testing.assert_close(e.z[1], method.second_projector(method.second(views[1])))
    assert not torch.allclose(method.second(views[0]), e.h[0])


@OBJECTIVES
def test_both_networks_are_trained_and_neither_by_the_others_view(objective: str) -> None:
    method = two_networks(objective=objective)
    before = {name: value.clone() for name, value in method.named_parameters()}
    train_briefly(method, 2)
    for name, value in method.named_parameters():
        assert not torch.equal(value, before[name]), name

    method.zero_grad()
    e = method.embed(make_views())
    e.z[1].square().sum().backward()
    trained = {name for name, gradient in gradients(method).items() if gradient.abs().max() > 0}
    assert trained == {name for name, _ in method.named_parameters() if name.startswith("second")}


def test_the_objective_is_vicregs() -> None:
    """Paper, equations 1 to 6 with its weights, in float64 and by loops."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 9, 4, generator=generator, dtype=torch.float64)
    expected = 25 * float(mse_loss(z[0], z[1]))
    for view in z:
        centered = view - view.mean(dim=0)
        covariance = centered.T @ centered / 8
        for j in range(4):
            # The factor of 1/2 is the mean over views of the losses' convention.
            std = math.sqrt(float(covariance[j, j]) + 1e-4)
            expected += 25 * max(0.0, 1 - std) / 4 / 2
            for k in range(4):
                expected += float(covariance[j, k]) ** 2 / 4 * (j != k)
    loss = two_networks().objective(Embeddings(h=z, z=z))
    assert float(loss.value) == pytest.approx(expected, rel=1e-9)


def test_the_objective_is_barlow_twins() -> None:
    """Paper, equations 1 and 2 with its lambda."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 9, 4, generator=generator, dtype=torch.float64)
    a, b = ((view - view.mean(dim=0)) / view.std(dim=0, correction=0) for view in z)
    c = a.T @ b / 9
    expected = sum(
        (1 - float(c[i, j])) ** 2 if i == j else 5e-3 * float(c[i, j]) ** 2
        for i in range(4)
        for j in range(4)
    )
    loss = two_networks(objective="barlow_twins").objective(Embeddings(h=z, z=z))
    assert float(loss.value) == pytest.approx(expected, rel=1e-3)


def test_the_second_may_be_of_another_kind() -> None:
    method = two_networks(second="test_byobnet")
    assert type(method.second[0]) is not type(method.backbone)  # type: ignore[index]
    views = tuple(torch.rand(4, 3, 32, 32) for _ in range(2))
    _, e = compute_gradient(method, views, torch.arange(4))
    # One width, whatever the width of the second network.
    assert e.h.shape == (2, 4, 16)
    assert "second.1.weight" in gradients(method)
