"""The order of a backbone's layers, and its first stages without training."""

import itertools

import pytest
import torch
from torch import nn

from noneg.networks.backbones import build_backbone
from noneg.networks.layers import (
    freeze_stages,
    freeze_statistics_of_frozen_layers,
    layer_numbers,
)

NAMES = [
    "small_convnet",
    "small_resnet",
    "resnet10t",
    "tf_efficientnet_lite0",
    "vit_tiny_patch16_224",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stages", [False, True])
def test_every_parameter_has_a_number_and_none_is_left_out(name: str, stages: bool) -> None:
    backbone = build_backbone(name, channels=3, size=32)
    numbers = layer_numbers(backbone, stages=stages)
    assert numbers.keys() == {name for name, _ in backbone.named_parameters()}
    assert set(numbers.values()) == set(range(max(numbers.values()) + 1))


def test_numbers_grow_from_the_images_to_the_features() -> None:
    numbers = layer_numbers(build_backbone("resnet10t", channels=3, size=64))
    stages = layer_numbers(build_backbone("resnet10t", channels=3, size=64), stages=True)
    order = ["conv1.0.weight", "layer1.0.conv1.weight", "layer2.0.bn1.bias", "layer4.0.bn2.weight"]
    for counted in (numbers, stages):
        assert all(counted[a] < counted[b] for a, b in itertools.pairwise(order))
    assert [stages[name] for name in order] == [0, 1, 2, 4]
    # A convolution and its norm are one layer.
    own = layer_numbers(build_backbone("small_convnet", channels=3, size=32))
    assert own["whitening.bias"] == 0
    assert own["stage1.0.0.weight"] == own["stage1.0.2.bias"] == 1
    assert own["stage1.1.0.weight"] == 2
    assert own["stage2.1.0.weight"] == 4
    coarse = layer_numbers(build_backbone("small_convnet", channels=3, size=32), stages=True)
    assert coarse["stage1.1.0.weight"] == 1
    assert coarse["stage2.0.0.weight"] == 2


def test_a_network_without_submodules_in_common_counts_its_modules() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(4, 5))
    assert layer_numbers(network) == {"0.weight": 0, "0.bias": 0, "2.weight": 1, "2.bias": 1}


def test_frozen_stages_get_no_gradient_and_keep_their_statistics() -> None:
    backbone = build_backbone("resnet10t", channels=3, size=64)
    assert freeze_stages(backbone, 2) == 5
    freeze_statistics_of_frozen_layers(backbone)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    backbone(torch.randn(4, 3, 64, 64)).square().mean().backward()
    for name, parameter in backbone.named_parameters():
        is_frozen = name.startswith(("conv1", "bn1", "layer1"))
        assert (parameter.grad is None) == is_frozen, name
    for name, value in backbone.state_dict().items():
        if name.endswith("running_mean"):
            is_frozen = name.startswith(("conv1", "bn1", "layer1"))
            assert torch.equal(value, before[name]) == is_frozen, name
