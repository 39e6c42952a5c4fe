"""BYOL's ablation switches do what their names say."""

import math

import pytest
import torch
from test_contract import build, gradients, make_views, train_briefly
from torch import nn

from conftest import TinyBackbone
from noneg.methods.base import Rate
from noneg.methods.byol import BYOL, Options
from noneg.training.step import compute_gradient


def byol(**options: object) -> BYOL:
    method = build("byol", **options)
    assert isinstance(method, BYOL)
    return method


def test_the_target_follows_by_the_papers_cosine() -> None:
    method = byol(tau=0.9)
    assert method.target is not None
    with torch.no_grad():
        for parameter in method.target.parameters():
            parameter.zero_()
    progress = 0.25
    method.after_step(progress)
    tau = 1 - (1 - 0.9) * (math.cos(math.pi * progress) + 1) / 2
    online = dict(nn.Sequential(method.backbone, method.projector).named_parameters())
    for name, parameter in method.target.named_parameters():
        torch.testing.assert_close(parameter.data, (1 - tau) * online[name].data)


@pytest.mark.parametrize("progress", [0.0, 0.4, 1.0])
def test_a_constant_tau_stays_to_the_end(progress: float) -> None:
    method = byol(tau=0.9, tau_constant=True)
    assert method.target is not None
    with torch.no_grad():
        for parameter in method.target.parameters():
            parameter.zero_()
    method.after_step(progress)
    online = nn.Sequential(method.backbone, method.projector).parameters()
    for parameter, one in zip(method.target.parameters(), online, strict=True):
        torch.testing.assert_close(parameter.data, 0.1 * one.data)


def test_buffers_are_averaged_and_not_moved_by_the_targets_own_batches() -> None:
    method = byol(tau=0.5)
    assert method.target is not None
    norm = method.target[1][1]
    before = norm.running_mean.clone()
    method.embed(make_views())
    assert torch.equal(norm.running_mean, before)
    method.after_step(0.0)
    online = method.projector[1].running_mean
    torch.testing.assert_close(norm.running_mean, 0.5 * before + 0.5 * online)


def test_at_the_end_the_target_stands_still() -> None:
    method = byol()
    assert method.target is not None
    with torch.no_grad():
        method.backbone.mix.weight.add_(1)
    before = [parameter.clone() for parameter in method.target.parameters()]
    method.after_step(1.0)
    for parameter, old in zip(method.target.parameters(), before, strict=True):
        assert torch.equal(parameter, old)


def test_a_frozen_target_never_moves() -> None:
    method = byol(target="frozen")
    assert method.target is not None
    before = {key: value.clone() for key, value in method.target.state_dict().items()}
    train_briefly(method, 3)
    for key, value in method.target.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(value, before[key]), key


def test_a_copy_is_the_online_projection_without_gradient() -> None:
    method = byol(target="copy")
    e = method.embed(make_views())
    assert e.t is not None
    assert torch.equal(e.t, e.z)
    assert not e.t.requires_grad
    assert e.z.requires_grad


def test_without_stop_gradient_both_sides_get_gradient() -> None:
    stopped, flowing = byol(target="copy"), byol(stop_gradient=False)
    for method in (stopped, flowing):
        compute_gradient(method, make_views(), torch.arange(12))
    assert flowing.embed(make_views()).t.requires_grad  # type: ignore[union-attr]
    assert not torch.allclose(
        gradients(stopped)["backbone.mix.weight"], gradients(flowing)["backbone.mix.weight"]
    )


@pytest.mark.parametrize(
    ("predictor", "trained", "linear_layers"),
    [("mlp", True, 2), ("linear", True, 1), ("fixed", False, 2), ("none", False, 0)],
)
def test_predictors(predictor: str, trained: bool, linear_layers: int) -> None:
    method = byol(predictor=predictor)
    layers = [each for each in method.predictor.modules() if isinstance(each, nn.Linear)]
    assert len(layers) == linear_layers
    assert all(layer.weight.requires_grad == trained for layer in layers)
    if predictor == "none":
        e = method.embed(make_views())
        assert e.p is not None
        assert torch.equal(e.p, e.z)


def test_the_loss_is_the_papers_equation() -> None:
    method = byol()
    e = method.embed(make_views())
    assert e.p is not None
    assert e.t is not None
    unit = torch.nn.functional.normalize
    p, t = (unit(each.double(), dim=-1) for each in (e.p, e.t))
    expected = ((p[0] - t[1]) ** 2).sum(-1).mean() + ((p[1] - t[0]) ** 2).sum(-1).mean()
    torch.testing.assert_close(method.objective(e).value.double(), expected)


@pytest.mark.parametrize("rate", [0.0, 2.0, 10.0])
def test_the_predictors_rate_is_a_multiple_of_the_runs(rate: float) -> None:
    assert byol(target="copy", predictor_rate=rate).rates == {"predictor": Rate(rate)}


def test_the_paper_has_its_sizes() -> None:
    method = BYOL(TinyBackbone(), 16, Options())
    widths = [layer.out_features for layer in method.projector if isinstance(layer, nn.Linear)]
    assert widths == [4096, 256]
    assert method.rates["predictor"].multiplier == 1
