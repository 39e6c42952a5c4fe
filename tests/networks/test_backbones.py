"""Backbones by name: shapes, widths, stems, and errors that help."""

import pytest
import torch
from timm.models.resnet import ResNet
from torch import nn

from noneg.errors import NonegError
from noneg.networks.backbones import OURS, SMALL, SMALL_RESNET, build_backbone, list_backbones

# Known widths, from timm's own classifier layers; MobileNetV3's differs from its num_features, 576.
WIDTHS = {
    (SMALL, 32): 256,
    (SMALL_RESNET, 32): 256,
    ("resnet18", 32): 512,
    ("vit_tiny_patch16_224", 48): 192,
    ("convnext_atto", 64): 320,
    ("mobilenetv3_small_050", 64): 1024,
    ("efficientnet_b0", 64): 1280,
    ("regnety_002", 64): 368,
}


@pytest.mark.parametrize(("name", "size"), WIDTHS)
@pytest.mark.parametrize("channels", [1, 5])
def test_gives_one_vector_per_image_of_the_width_it_says(
    name: str, size: int, channels: int
) -> None:
    backbone = build_backbone(name, channels=channels, size=size)
    assert backbone.training
    assert backbone.num_features == WIDTHS[name, size]
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, channels, size, size, generator=generator)
    with torch.no_grad():
        features = backbone.eval()(images)
    assert features.shape == (2, backbone.num_features)
    assert torch.isfinite(features).all()
    # A dead network would give every image the same vector.
    assert not torch.allclose(features[0], features[1])


def convolutions_before_first_block(backbone: nn.Module) -> list[tuple[int, ...]]:
    assert isinstance(backbone, ResNet)
    return [
        (*module.kernel_size, *module.stride)
        for module in backbone.conv1.modules()
        if isinstance(module, nn.Conv2d)
    ]


def test_small_images_get_a_small_stem_and_large_ones_timms_own() -> None:
    small = build_backbone("resnet18", channels=3, size=64)
    assert convolutions_before_first_block(small) == [(3, 3, 1, 1)]
    assert isinstance(small.maxpool, nn.Identity)
    large = build_backbone("resnet18", channels=3, size=65)
    assert convolutions_before_first_block(large) == [(7, 7, 2, 2)]
    assert isinstance(large.maxpool, nn.MaxPool2d)
    deep = build_backbone("resnet18d", channels=3, size=32)
    assert convolutions_before_first_block(deep) == [(3, 3, 1, 1)] * 3
    # Layers 2 to 4 halve the side: 32 -> 4, where timm's stem would leave 1.
    with torch.no_grad():
        for backbone in (small, deep):
            features = backbone.eval().forward_features(torch.zeros(1, 3, 32, 32))
            assert features.shape[-2:] == (4, 4)


def test_the_small_resnet_halves_the_side_four_times() -> None:
    backbone = build_backbone(SMALL_RESNET, channels=3, size=32)
    assert convolutions_before_first_block(backbone) == [(3, 3, 2, 2)]
    assert isinstance(backbone, ResNet)
    with torch.no_grad():
        assert backbone.eval().forward_features(torch.zeros(1, 3, 32, 32)).shape == (1, 256, 2, 2)
    # One block per stage: nine convolutions of 3 x 3, and one of 1 x 1 on each shortcut.
    assert sum(isinstance(module, nn.Conv2d) for module in backbone.modules()) == 13


def test_the_replaced_stem_is_initialized_as_timm_does() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("resnet18", channels=3, size=32)
    weight = backbone.get_parameter("conv1.weight").detach()
    # Kaiming, fan out: variance 2 / (3 * 3 * 64); torch's default would be 1 / (3 * 3 * 3 * 3).
    assert float(weight.std()) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.06)


def test_the_seed_alone_decides_the_weights() -> None:
    def build() -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        return build_backbone(SMALL, channels=3, size=32).state_dict()

    first, second = build(), build()
    assert all(torch.equal(first[name], second[name]) for name in first)
    torch.manual_seed(4)
    other = build_backbone(SMALL, channels=3, size=32).state_dict()
    name = "stage2.0.0.weight"
    assert not torch.equal(first[name], other[name])


def test_building_leaves_the_batch_statistics_fresh() -> None:
    buffers = dict(build_backbone(SMALL, channels=3, size=32).named_buffers())
    assert all(torch.all(value == 0) for name, value in buffers.items() if "mean" in name)
    assert all(value == 0 for name, value in buffers.items() if "num_batches" in name)
    assert all(torch.all(value == 1) for name, value in buffers.items() if "var" in name)


def test_names_can_be_listed() -> None:
    names = list_backbones()
    assert names[0] == SMALL
    assert {"resnet18", "vit_tiny_patch16_224"} <= set(names)
    assert list_backbones("small_*") == [*OURS, *list_backbones("small_*")[2:]]
    assert list_backbones("resnet18*")[0] == "resnet18"
    assert list_backbones("no such name*") == []


@pytest.mark.parametrize(
    ("name", "channels", "size", "sentence"),
    [
        ("resnet81", 3, 32, r"named 'resnet81'; did you mean resnet\d+.*noneg list backbones"),
        ("small_resnt", 3, 32, "did you mean small_resnet"),
        ("hf-hub:timm/resnet18.a1_in1k", 3, 32, "There is no backbone named 'hf-hub"),
        ("vit_tiny_patch16_224", 3, 40, "40 x 40 .* 16 x 16 .*'vit_tiny_patch16_224'"),
        ("inception_v3", 3, 32, "'inception_v3' does not run on images of 32 x 32"),
        (SMALL, 0, 32, "channels=0"),
        (SMALL, 3, 0, "size=0"),
    ],
)
def test_errors_name_the_fault(name: str, channels: int, size: int, sentence: str) -> None:
    with pytest.raises(NonegError, match=sentence):
        build_backbone(name, channels=channels, size=size)
