"""BatchNorm, and what can replace it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import noneg
from noneg.encoder import Encoder, EncoderInfo, load
from noneg.networks.backbones import build_backbone
from noneg.networks.norms import (
    batch_norms,
    freeze_statistics,
    measure_statistics,
    statistics_move_once_in,
    statistics_stay,
    use_group_norm,
)
from noneg.training.distributed import SynchronizedBatchNorm, synchronize_statistics


@pytest.mark.parametrize(
    ("channels", "groups"), [(8, 1), (16, 1), (24, 1), (32, 2), (40, 2), (96, 6), (1024, 64)]
)
def test_groups_have_sixteen_channels_or_somewhat_more(channels: int, groups: int) -> None:
    module = nn.Sequential(nn.BatchNorm2d(channels))
    use_group_norm(module)
    assert isinstance(module[0], nn.GroupNorm)
    assert module[0].num_groups == groups


@pytest.mark.parametrize("name", ["small_resnet", "resnet18", "mobilenetv3_small_100"])
def test_without_batch_norm_an_image_does_not_see_the_others(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name, channels=3, size=32, norm="group")
    assert not batch_norms(backbone)
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        whole = backbone(images)
        torch.testing.assert_close(backbone(images[:1]), whole[:1], rtol=1e-4, atol=1e-5)
    # The control: with BatchNorm they do.
    plain = build_backbone(name, channels=3, size=32)
    with torch.no_grad():
        assert not torch.allclose(plain(images[:2]), plain(images)[:2], rtol=1e-2, atol=1e-2)


def test_scale_and_shift_are_kept() -> None:
    module = nn.Sequential(nn.BatchNorm1d(32), nn.BatchNorm1d(32, affine=False))
    scale = module[0].weight
    assert isinstance(scale, nn.Parameter)
    nn.init.zeros_(scale)
    scale.requires_grad_(False)
    use_group_norm(module)
    assert module[0].weight is scale
    assert module[1].weight is None
    assert not scale.requires_grad


def test_frozen_statistics_are_measured_once_and_stay() -> None:
    module = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))
    data = torch.randn(2, 400, 3) * 4 + 7
    measure_statistics(module, lambda: [module(each) for each in data])
    norm = batch_norms(module)[0]
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.momentum == 0.1
    # The average over both batches.
    torch.testing.assert_close(norm.running_mean, data.mean(dim=1).mean(dim=0))
    torch.testing.assert_close(norm.running_var, data.var(dim=1).mean(dim=0))
    before = norm.running_mean.clone()
    module.train()
    freeze_statistics(module)
    normalized = norm(data[0])
    assert torch.equal(norm.running_mean, before)
    expected = (data[0] - before) / (norm.running_var + 1e-5).sqrt()
    torch.testing.assert_close(normalized, expected)
    assert module[1].training


def test_many_passes_move_statistics_as_far_as_one() -> None:
    one, many, still = nn.BatchNorm1d(3), nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    data = torch.randn(40, 3) + 5
    one(data)
    with statistics_move_once_in(many, 7):
        for _ in range(7):
            many(data)
    with statistics_stay(still):
        normalized = still(data)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(many, name), getattr(one, name))
    torch.testing.assert_close(normalized, one(data))
    assert torch.equal(still.running_mean, torch.zeros(3))  # type: ignore[arg-type]
    assert many.momentum == 0.1
    assert still.track_running_stats


def info(norm: str) -> EncoderInfo:
    return EncoderInfo(
        backbone="small_resnet",
        channels=3,
        size=16,
        stored_size=16,
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
        features=256,
        method="vicreg",
        norm=norm,  # type: ignore[arg-type]
    )


def test_an_encoder_with_group_norm_comes_back(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    backbone = build_backbone("small_resnet", channels=3, size=16, norm="group")
    encoder = Encoder(backbone, info("group"))
    encoder.save(tmp_path)
    assert np.array_equal(load(tmp_path).embed(images), encoder.embed(images))


def test_an_encoder_from_before_there_was_a_choice_has_batch_norm(tmp_path: Path) -> None:
    Encoder(build_backbone("small_resnet", channels=3, size=16), info("batch")).save(tmp_path)
    path = tmp_path / "encoder.json"
    fields = json.loads(path.read_text())
    for version, added in ((2, ("interpolation",)), (1, ("interpolation", "norm"))):
        older = {name: value for name, value in fields.items() if name not in added}
        path.write_text(json.dumps(older | {"format": version}))
        info_of_today = noneg.load(tmp_path).info
        assert (info_of_today.norm, info_of_today.interpolation) == ("batch", "bilinear")


def test_a_norm_that_does_not_exist_is_named(tmp_path: Path) -> None:
    Encoder(build_backbone("small_resnet", channels=3, size=16), info("batch")).save(tmp_path)
    path = tmp_path / "encoder.json"
    path.write_text(path.read_text().replace('"norm": "batch"', '"norm": "layer"'))
    with pytest.raises(noneg.NonegError, match="norm = 'layer'"):
        noneg.load(tmp_path)


@pytest.mark.parametrize("on_gpus", [False, True])
def test_synchronized_statistics_change_nothing_else(on_gpus: bool) -> None:
    """Timm's BatchNorm ends with an activation, which torch's conversion would lose."""
    torch.manual_seed(0)
    backbone = build_backbone("mobilenetv3_small_100", channels=3, size=32)
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        backbone(images)
    backbone.eval()
    before, state = backbone(images), backbone.state_dict()
    parameters = list(backbone.parameters())
    synchronize_statistics(backbone, on_gpus=on_gpus)
    torch.testing.assert_close(backbone(images), before)
    assert backbone.state_dict().keys() == state.keys()
    assert all(one is other for one, other in zip(backbone.parameters(), parameters, strict=True))
    assert len(batch_norms(backbone)) > 10
    kinds = torch.nn.SyncBatchNorm if on_gpus else SynchronizedBatchNorm
    assert all(isinstance(norm, kinds) for norm in batch_norms(backbone))


def test_torchs_own_conversion_would_lose_activations() -> None:
    """The control, and the reason for timm's conversion."""
    backbone = build_backbone("mobilenetv3_small_100", channels=3, size=32).eval()
    images = torch.randn(4, 3, 32, 32)
    before = backbone(images)
    converted = torch.nn.SyncBatchNorm.convert_sync_batchnorm(backbone)
    assert not torch.allclose(converted(images), before, rtol=0.1)
