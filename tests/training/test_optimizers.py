"""Parameter groups, and the learning rate at each step."""

import itertools

import pytest
import torch
from torch import nn

from conftest import TinyBackbone
from noneg.methods.simsiam import Options, SimSiam
from noneg.training.config import TrainConfig
from noneg.training.optimizers import (
    anchors_of,
    build_optimizer,
    parameter_groups,
    pull_back,
    rate_share,
    set_learning_rates,
)


def test_only_weights_decay_and_the_predictor_has_another_rate() -> None:
    options = Options(projector=(8, 8), predictor_hidden=4, predictor_rate=3.0)
    method = SimSiam(TinyBackbone(), 16, options)
    config = TrainConfig(learning_rate=0.1, weight_decay=0.01, bias_rate=0.5)
    groups = parameter_groups(method, config, batch_size=512)
    grouped = [parameter for group in groups for parameter in group["params"]]
    assert len(grouped) == len(set(grouped)) == len(list(method.parameters()))
    predictor = set(method.predictor.parameters())
    for group in groups:
        for parameter in group["params"]:
            is_weight = parameter.ndim > 1
            assert group["weight_decay"] == (0.01 if is_weight else 0.0)
            rate = 0.1 * 2 * (1.0 if is_weight else 0.5) * (3.0 if parameter in predictor else 1.0)
            assert group["full_rate"] == pytest.approx(rate)
            assert group["constant"] == (parameter in predictor)


def test_the_schedule_warms_up_and_ends_at_zero() -> None:
    shares = [rate_share(step, 100, 10) for step in range(100)]
    assert shares[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert shares[10] == 1
    assert shares[55] == pytest.approx(0.5)
    assert all(a > b for a, b in itertools.pairwise(shares[10:]))
    assert 0 < shares[99] < 1e-3
    assert rate_share(0, 1, 0) == 1


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd", "lars", "larc"])
def test_constant_groups_keep_their_rate(optimizer: str) -> None:
    method = SimSiam(TinyBackbone(), 16, Options(projector=(8, 8), predictor_hidden=4))
    config = TrainConfig(optimizer=optimizer, learning_rate=0.1)  # type: ignore[arg-type]
    built = build_optimizer(method, config, batch_size=256)
    set_learning_rates(built, 0.25)
    rates = {group["constant"]: group["lr"] for group in built.param_groups}
    assert rates == {True: pytest.approx(0.1), False: pytest.approx(0.025)}


@pytest.mark.parametrize(("gradient", "step"), [(1e-3, 1e-4), (100.0, 0.02 * 0.5)])
def test_larc_is_sgd_with_steps_of_at_most_a_fiftieth_of_a_layer(
    gradient: float, step: float
) -> None:
    method = SimSiam(TinyBackbone(), 16, Options(projector=(8, 8), predictor_hidden=4))
    config = TrainConfig(optimizer="larc", learning_rate=0.1, weight_decay=1e-9)
    built = build_optimizer(method, config, batch_size=256)
    set_learning_rates(built, 1.0)
    weight = method.predictor[0].weight  # type: ignore[index, union-attr]
    with torch.no_grad():
        weight.fill_(0.5)
    weight.grad = torch.full_like(weight, gradient)
    built.step()
    assert (0.5 - weight).detach().tolist() == [[pytest.approx(step, rel=1e-3)] * 8] * 4


def test_muon_takes_the_convolutions_of_the_backbone_and_adamw_the_rest() -> None:
    backbone = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(8, 16)
    )
    method = SimSiam(backbone, 16, Options(projector=(8, 8), predictor_hidden=4))
    config = TrainConfig(optimizer="muon", learning_rate=0.1)
    groups = parameter_groups(method, config, batch_size=256)
    orthogonal = [
        parameter for group in groups if group["orthogonal"] for parameter in group["params"]
    ]
    assert [id(each) for each in orthogonal] == [id(backbone[0].weight)]
    assert sum(len(group["params"]) for group in groups) == len(list(method.parameters()))


def test_layers_of_the_backbone_have_rates_that_decay_towards_the_images() -> None:
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 16))
    method = SimSiam(backbone, 16, Options(projector=(8, 8), predictor_hidden=4))
    config = TrainConfig(learning_rate=0.2, backbone_rate=0.1, layer_decay=0.5)
    rates = {
        id(parameter): group["full_rate"]
        for group in parameter_groups(method, config, batch_size=128)
        for parameter in group["params"]
    }
    for layer, rate in ((0, 0.0025), (1, 0.005), (2, 0.01)):
        assert rates[id(backbone[layer].weight)] == pytest.approx(rate)
        assert rates[id(backbone[layer].bias)] == pytest.approx(rate)
    assert all(rates[id(each)] == pytest.approx(0.1) for each in method.projector.parameters())


def test_the_backbone_waits_while_the_heads_learn() -> None:
    method = SimSiam(TinyBackbone(), 16, Options(projector=(8, 8), predictor_hidden=4))
    config = TrainConfig(learning_rate=0.1, heads_first=1.0)
    built = build_optimizer(method, config, batch_size=256)
    set_learning_rates(built, 0.5, 1.0, 0.0)
    backbone = {id(parameter) for parameter in method.backbone.parameters()}
    for group in built.param_groups:
        waits = {id(parameter) in backbone for parameter in group["params"]}
        assert waits == {group["backbone"]}
        expected = 0.0 if group["backbone"] else 0.1 if group["constant"] else 0.05
        assert group["lr"] == pytest.approx(expected)


def test_the_groups_are_those_of_earlier_checkpoints_if_all_learn_alike() -> None:
    """The optimizer of a run that was stopped before there were these settings still loads."""
    method = SimSiam(TinyBackbone(), 16, Options(projector=(8, 8), predictor_hidden=4))
    groups = parameter_groups(method, TrainConfig(), batch_size=256)
    # Weights and the rest, of the predictor and of all else.
    assert len(groups) == 4
    built = build_optimizer(method, TrainConfig(), batch_size=256)
    state = built.state_dict()
    for group in state["param_groups"]:
        del group["backbone"]
    built.load_state_dict(state)
    set_learning_rates(built, 0.5, 1.0, 0.5)


def test_weights_are_pulled_back_by_their_own_rates() -> None:
    """The heads are free; each layer of the backbone goes its rate times the pull of the way."""
    backbone = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    backbone[0].requires_grad_(False)
    method = SimSiam(backbone, 4, Options(projector=(8, 8), predictor_hidden=4))
    config = TrainConfig(optimizer="sgd", learning_rate=0.2, layer_decay=0.5)
    built = build_optimizer(method, config, batch_size=256)
    set_learning_rates(built, 1.0)
    anchors = anchors_of(method.backbone)
    before = {name: value.clone() for name, value in method.named_parameters()}
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(1)
    pull_back(built, anchors, 0.5)
    for name, value in method.named_parameters():
        left = {"backbone.1": 1 - 0.1 * 0.5, "backbone.2": 1 - 0.2 * 0.5}.get(name[:10], 1.0)
        torch.testing.assert_close(value.detach(), before[name] + left)
    # Not beyond the anchor.
    pull_back(built, anchors, 100.0)
    assert torch.equal(backbone[1].weight, before["backbone.1.weight"])
