"""The first layer of small_convnet: measured on images, not trained, kept with the encoder."""

import numpy as np
import pytest
import torch
from torch import Tensor

from noneg.errors import NonegError
from noneg.networks.backbones import SMALL, build_backbone
from noneg.networks.patch_whitening import (
    SMALLEST_VARIANCE,
    PatchWhitening,
    copy_whitening,
    measure_whitening,
)


def smooth_images(count: int, channels: int, side: int, seed: int = 0) -> Tensor:
    """Neighboring pixels and channels are similar, as in photographs."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.standard_normal((count, channels, side // 4, side // 4))).float()
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    noise = torch.from_numpy(rng.standard_normal((count, channels, side, side))).float()
    return smooth + smooth.mean(dim=1, keepdim=True) + 0.1 * noise


def covariance_of(responses: Tensor) -> Tensor:
    flat = responses.permute(1, 0, 2, 3).flatten(1).double()
    return torch.cov(flat, correction=0)


@pytest.mark.parametrize(("channels", "side"), [(1, 2), (3, 2), (5, 3)])
@torch.no_grad()
def test_directions_are_uncorrelated_and_the_strong_ones_have_variance_one(
    channels: int, side: int
) -> None:
    images = smooth_images(300, channels, 16)
    layer = PatchWhitening(channels, side)
    before = covariance_of(layer(images)[:, : channels * side**2])
    layer.measure(images)
    responses = layer(images)
    numbers = channels * side**2
    assert responses.shape == (300, 2 * numbers, 17 - side, 17 - side)
    covariance = covariance_of(responses[:, :numbers])
    variances = covariance.diagonal()
    off_diagonal = covariance - torch.diag(variances)
    assert off_diagonal.abs().max() < 1e-4
    # In closed form: the variance v of a direction becomes v / (v + floor).
    eigenvalues = torch.linalg.eigvalsh(before).flip(0)
    floor = SMALLEST_VARIANCE * eigenvalues.mean()
    torch.testing.assert_close(variances, eigenvalues / (eigenvalues + floor), atol=1e-4, rtol=1e-3)
    # Before, brightness had many times the variance of anything else.
    assert before.diagonal().min() * 1.5 > before.diagonal().max() > 5 * eigenvalues[-1]
    torch.testing.assert_close(responses[:, numbers:], -responses[:, :numbers])


@pytest.mark.parametrize("channels", [1, 3])
def test_flat_and_gray_images_give_finite_weights(channels: int) -> None:
    for images in (
        torch.full((20, channels, 8, 8), 0.3),
        smooth_images(20, 1, 8).repeat(1, 3, 1, 1),
    ):
        layer = PatchWhitening(images.shape[1])
        layer.measure(images)
        assert torch.isfinite(layer.weight).all()
        # Noise of a hundredth of the images' contrast is not amplified to more than they are.
        noise = layer(0.01 * images.std() * torch.randn(50, images.shape[1], 8, 8))
        assert noise.abs().max() < 1


def test_the_measured_weights_depend_neither_on_the_order_nor_on_the_number_of_images() -> None:
    images = smooth_images(600, 3, 8)
    one, other = PatchWhitening(3), PatchWhitening(3)
    one.measure(images)
    other.measure(images.flip(0).repeat(2, 1, 1, 1))
    torch.testing.assert_close(one.weight, other.weight, atol=1e-4, rtol=1e-3)


def test_is_kept_but_not_trained() -> None:
    backbone = build_backbone(SMALL, channels=3, size=16)
    measure_whitening(backbone, smooth_images(50, 3, 16))
    trained = {name for name, weight in backbone.named_parameters() if weight.requires_grad}
    assert "whitening.bias" in trained
    assert "whitening.weight" not in trained
    assert "whitening.weight" in backbone.state_dict()


def test_copies_what_was_measured_and_nothing_else() -> None:
    source, target = (build_backbone(SMALL, channels=3, size=16) for _ in range(2))
    measure_whitening(source, smooth_images(50, 3, 16))
    before = {name: value.clone() for name, value in target.state_dict().items()}
    copy_whitening(source, target)
    changed = {name for name, value in target.state_dict().items() if not value.equal(before[name])}
    assert changed == {"whitening.weight"}
    assert target.get_buffer("whitening.weight").equal(source.get_buffer("whitening.weight"))


def test_images_smaller_than_a_patch_are_one_sentence() -> None:
    with pytest.raises(NonegError, match="less than a patch of 3 x 3"):
        PatchWhitening(3, 3).measure(torch.zeros(4, 3, 2, 2))
