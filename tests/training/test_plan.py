"""A config is completed to a plan, and networks depend on the seed."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from noneg.errors import NonegError
from noneg.images import find_source
from noneg.training.build import build_method, find_wasted_stride
from noneg.training.config import TrainConfig, make_config
from noneg.training.hardware import choose_hardware
from noneg.training.plan import (
    choose_batch_size,
    choose_size,
    choose_view_size,
    complete,
    plan_of,
    steps_of,
)
from noneg.views import view_sizes


def small_config(**settings: object) -> TrainConfig:
    fixed = {"backbone": "small_resnet", "size": 32, "channels": 3, "batch_size": 8}
    return make_config("shapes", **{**fixed, **settings})


def test_the_images_decide_the_settings_without_a_value() -> None:
    gray = np.zeros((500, 60, 60), dtype=np.uint8)
    plan = complete(make_config(gray), find_source(gray))
    assert (plan.size, plan.channels, plan.batch_size) == (64, 1, 64)
    assert plan.backbone == "small_convnet"
    assert len(plan.policy) == 2
    assert plan.config == replace(
        make_config(gray),
        size=64,
        view_size=32,
        channels=1,
        batch_size=64,
        backbone="small_convnet",
    )
    # The saved config gives the same plan without the images.
    assert plan_of(plan.config) == plan


@pytest.mark.parametrize(
    ("settings", "sides"),
    [
        ({"backbone": "small_convnet"}, (32, 32)),
        ({"backbone": "small_convnet", "size": 32}, (20, 20)),
        ({"backbone": "small_convnet", "size": 28}, (20, 20)),
        ({"backbone": "small_convnet", "size": 9}, (9, 9)),
        ({"backbone": "small_convnet", "view_size": 48}, (48, 48)),
        ({"backbone": "resnet18"}, (64, 64)),
        ({"backbone": "resnet18", "view_size": 40}, (40, 40)),
        # A view that names its own side keeps it, and policies choose theirs from the views'.
        ({"backbone": "small_convnet", "views": [{"size": 20}, {}]}, (20, 32)),
        ({"backbone": "small_convnet", "views": "multi_crop"}, (32, 32, *(16,) * 6)),
    ],
)
def test_views_are_smaller_than_the_images_for_the_small_network_only(
    settings: dict[str, object], sides: tuple[int, ...]
) -> None:
    gray = np.zeros((500, 60, 60), dtype=np.uint8)
    plan = complete(make_config(gray, **settings), find_source(gray))
    assert view_sizes(plan.policy, plan.size) == sides


@pytest.mark.parametrize(
    ("backbone", "size", "side"),
    [
        ("tf_efficientnet_lite0", 224, 112),
        ("resnet50", 128, 96),
        ("resnet50", 80, 80),
        # It takes images of one size.
        ("vit_small_patch16_224", 224, 224),
        ("some.module:network", 224, 224),
    ],
)
def test_views_are_smaller_for_known_weights_that_take_any_size(
    backbone: str, size: int, side: int
) -> None:
    assert choose_view_size(size, backbone, known=True) == side
    assert choose_view_size(size, backbone) == size


def test_runs_from_before_there_was_a_view_size_keep_views_of_full_size() -> None:
    plan = plan_of(small_config(backbone="small_convnet"))
    assert plan.config.view_size is None
    assert view_sizes(plan.policy, plan.size) == (32, 32)


@pytest.mark.parametrize("name", ["size", "channels", "batch_size", "backbone"])
def test_an_incomplete_config_is_not_a_plan(name: str) -> None:
    config = replace(small_config(), **{name: "auto" if name == "backbone" else None})
    with pytest.raises(NonegError, match="must have values"):
        plan_of(config)


def test_steps_leave_out_the_incomplete_batch() -> None:
    plan = plan_of(small_config(epochs=10, warmup_epochs=0.5))
    steps = steps_of(plan, 47)
    # Five whole batches of eight; the warm-up is half an epoch, and at most a tenth of the run.
    assert (steps.per_epoch, steps.total, steps.warmup) == (5, 50, 2)
    assert steps_of(plan_of(small_config(epochs=10, warmup_epochs=9.0)), 47).warmup == 5


def test_devices_come_from_the_settings_or_from_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    asked = choose_hardware(TrainConfig(accelerator="cpu"))
    assert (asked.accelerator, asked.devices, asked.num_nodes) == ("cpu", 1, 1)
    assert asked.on_cpu
    assert "cpu with" in asked.description
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("WORLD_SIZE", "6")
    launched = choose_hardware(TrainConfig(accelerator="cpu"))
    assert (launched.devices, launched.num_nodes) == (2, 3)
    assert choose_hardware(TrainConfig(accelerator="cpu", devices=4)).devices == 4


def test_sizes_and_batch_sizes_fit_the_images() -> None:
    assert [choose_size(natural) for natural in (28, 32, 64, 96, 400)] == [32, 32, 64, 64, 64]
    assert choose_batch_size(50_000, 256) == 256
    assert choose_batch_size(4_000, 256) == 128
    assert choose_batch_size(250, 256) == 64
    assert choose_batch_size(100, 256) == 32
    assert choose_batch_size(5, 256) == 2


def test_weights_depend_on_the_seed_and_keep_the_global_random_state() -> None:
    plan = plan_of(small_config())
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = build_method(plan).state_dict()
    assert torch.equal(torch.rand(3), expected)
    two = build_method(plan).state_dict()
    other = build_method(plan_of(small_config(seed=1))).state_dict()
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert not torch.equal(one["backbone.conv1.weight"], other["backbone.conv1.weight"])


def test_a_stride_over_a_single_pixel_is_found() -> None:
    for size, found in ((32, False), (16, False), (8, True)):
        plan = plan_of(small_config(size=size))
        layer = find_wasted_stride(build_method(plan).backbone, plan)
        assert (layer is not None) == found, size
    # The small views of multi-crop count as well.
    plan = plan_of(small_config(size=16, views="multi_crop"))
    assert find_wasted_stride(build_method(plan).backbone, plan) is not None
