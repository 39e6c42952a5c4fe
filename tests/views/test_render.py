"""Views: each operation against torchvision's, and parameters that only depend on the image."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms
import torchvision.transforms.v2.functional as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from noneg.errors import NonegError
from noneg.randomness import hash_key
from noneg.views import POLICIES, View, draw_views, view_sizes
from noneg.views.parameters import ViewParameters, sample_parameters
from noneg.views.policy import Interpolation
from noneg.views.render import _WORKING_BYTES, render
from noneg.views.resample import Taps, gather_and_sum, sum_rows, taps_of_rows

PLAIN = View(
    crop_scale=(1.0, 1.0),
    crop_ratio=(1.0, 1.0),
    flip=0.0,
    jitter=0.0,
    grayscale=0.0,
    blur=0.0,
    solarize=0.0,
)
BLUR = dataclasses.replace(PLAIN, blur=1.0)
DIHEDRAL = dataclasses.replace(PLAIN, transpose=0.5)


def photograph(batch: int = 3, channels: int = 3, height: int = 20, width: int = 28) -> Tensor:
    """Smooth random images in [0.2, 0.8], so that no color operation below reaches a clamp."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(batch, channels, 5, 7, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return 0.2 + 0.6 * (smooth - smooth.min()) / (smooth.max() - smooth.min())


def still(images: Tensor, **changes: Any) -> ViewParameters:
    """Parameters that change nothing, except for `changes`."""
    batch, channels, height, width = images.shape
    parameters = sample_parameters(PLAIN, 0, np.arange(batch), channels, height, width)
    whole = {"top": [0] * batch, "left": [0] * batch}
    whole |= {"height": [height] * batch, "width": [width] * batch}
    arrays = {
        name: np.asarray(values, dtype=getattr(parameters, name).dtype)
        for name, values in {**whole, **changes}.items()
    }
    return dataclasses.replace(parameters, **arrays)


def rendered(images: Tensor, parameters: ViewParameters, size: int, view: View = PLAIN) -> Tensor:
    """Views in [0, 1] of images in [0, 1]."""
    channels = images.shape[1]
    out = torch.empty(len(images), channels, size, size)
    plain: dict[str, Any] = {"mean": (0.0,) * channels, "std": (1.0,) * channels}
    render(255 * images, parameters, view, **plain, out=out)
    return out


def jittered(images: Tensor, **factors: float) -> Tensor:
    batch = len(images)
    shapes = {
        "brightness": (batch, 1),
        "contrast": (batch, 1),
        "saturation": (batch,),
        "hue": (batch,),
    }
    changes = {name: np.full(shapes[name], value) for name, value in factors.items()}
    return rendered(images, still(images, **changes), 20)


def square(batch: int = 3, channels: int = 3) -> Tensor:
    return photograph(batch, channels, 20, 20)


def test_without_operations_a_view_is_the_image() -> None:
    images = square()
    torch.testing.assert_close(rendered(images, still(images), 20), images, rtol=0, atol=1e-6)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [7, 16, 20, 33])
@pytest.mark.parametrize("box", [(0, 0, 20, 28), (3, 5, 11, 9), (19, 27, 1, 1), (2, 1, 6, 25)])
def test_crop_and_resize_are_torchvisions(
    interpolation: Interpolation, size: int, box: tuple[int, int, int, int]
) -> None:
    images = photograph()
    top, left, height, width = ([value] * 3 for value in box)
    parameters = still(images, top=top, left=left, height=height, width=width)
    mode = torchvision.transforms.InterpolationMode(interpolation)
    expected = reference.resized_crop(images, *box, [size, size], mode, antialias=True)
    view = dataclasses.replace(PLAIN, interpolation=interpolation)
    torch.testing.assert_close(
        rendered(images, parameters, size, view), expected.clamp(0, 1), rtol=0, atol=2e-6
    )


def test_flips_are_torchvisions() -> None:
    images = square()
    only_first = [True, False, False]
    flipped = rendered(images, still(images, flip=only_first), 20)
    torch.testing.assert_close(flipped[0], reference.horizontal_flip(images[0]))
    torch.testing.assert_close(flipped[1:], images[1:])
    flipped = rendered(images, still(images, vertical_flip=only_first), 20)
    torch.testing.assert_close(flipped[0], reference.vertical_flip(images[0]))


@pytest.mark.parametrize("factor", [0.7, 1.0, 1.2])
@pytest.mark.parametrize("channels", [1, 3])
def test_brightness_contrast_and_saturation_are_torchvisions(factor: float, channels: int) -> None:
    images = square(channels=channels)
    for name, adjust in [
        ("brightness", reference.adjust_brightness),
        ("contrast", reference.adjust_contrast),
        ("saturation", reference.adjust_saturation),
    ]:
        torch.testing.assert_close(
            jittered(images, **{name: factor}), adjust(images, factor), rtol=0, atol=2e-6
        )


def test_jitter_follows_each_images_own_order() -> None:
    images = square(2)
    # These two do not commute: a rotated hue changes the mean gray, which contrast depends on.
    orders = [[3, 1, 2, 0], [1, 3, 2, 0]]
    parameters = still(images, order=orders, hue=[0.3, 0.3], contrast=[[0.6], [0.6]])
    both = rendered(images, parameters, 20)
    hue_first = jittered(jittered(images, hue=0.3), contrast=0.6)
    contrast_first = jittered(jittered(images, contrast=0.6), hue=0.3)
    torch.testing.assert_close(both[0], hue_first[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(both[1], contrast_first[1], rtol=0, atol=1e-6)
    assert (hue_first - contrast_first).abs().max() > 0.001


def test_grayscale_is_torchvisions() -> None:
    images = square()
    gray = rendered(images, still(images, grayscale=[True] * 3), 20)
    expected = reference.rgb_to_grayscale(images, num_output_channels=3)
    torch.testing.assert_close(gray, expected, rtol=0, atol=2e-6)


def test_hue_turns_red_to_green_to_blue_and_back() -> None:
    pure = torch.zeros(1, 3, 4, 4)
    pure[:, 0] = 0.6
    for turn, channel in [(0.0, 0), (1 / 3, 1), (-1 / 3, 2), (1.0, 0)]:
        parameters = still(pure, hue=[turn])
        result = rendered(pure, parameters, 4)
        assert int(result.mean(dim=(0, 2, 3)).argmax()) == channel
        torch.testing.assert_close(result[:, channel], pure[:, 0], rtol=0, atol=1e-5)
    gray = torch.full((1, 3, 4, 4), 0.4)
    torch.testing.assert_close(rendered(gray, still(gray, hue=[0.37]), 4), gray)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.0])
def test_blur_is_torchvisions(sigma: float) -> None:
    images = square()
    parameters = still(images, sigma=[sigma] * 3)
    blurred = rendered(images, parameters, 20, BLUR)
    expected = reference.gaussian_blur(images, [13, 13], [sigma, sigma])
    torch.testing.assert_close(blurred, expected, rtol=0, atol=2e-6)


def test_an_image_without_blur_is_not_changed_in_a_batch_with_blur() -> None:
    images = square()
    sigma = [0.0, 2.0, 0.0]
    blurred = rendered(images, still(images, sigma=sigma), 20, BLUR)
    torch.testing.assert_close(blurred[::2], images[::2], rtol=0, atol=1e-6)
    assert (blurred[1] - images[1]).abs().max() > 0.01


def test_solarize_is_torchvisions() -> None:
    images = square()
    result = rendered(
        images, still(images, solarize=[True] * 3), 20, dataclasses.replace(PLAIN, solarize=1.0)
    )
    expected = reference.solarize(images, 0.5)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


def uint8(batch: int = 8, channels: int = 3, side: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(
        0, 256, (batch, channels, side, side), dtype=torch.uint8, generator=generator
    )


def views_of(
    images: Tensor, index: Tensor, policy: str = "byol", **changes: int
) -> tuple[Tensor, ...]:
    channels = images.shape[1]
    arguments = {"size": 80, "seed": 0, "epoch": 0, **changes}
    return draw_views(
        images,
        index,
        POLICIES[policy](arguments["size"]),
        mean=(0.5,) * channels,
        std=(0.5,) * channels,
        **arguments,
    )


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_views_do_not_depend_on_the_rest_of_the_batch(policy: str) -> None:
    images, index = uint8(), torch.arange(8) * 1000
    whole = views_of(images, index, policy)
    order = torch.tensor([5, 2, 7])
    part = views_of(images[order], index[order], policy)
    for view, other in zip(whole, part, strict=True):
        torch.testing.assert_close(other, view[order], rtol=0, atol=1e-6)


def test_seed_epoch_image_and_view_each_change_the_view() -> None:
    images, index = uint8(1).expand(2, -1, -1, -1), torch.tensor([3, 4])
    first, second = views_of(images, index, "simsiam")
    assert not torch.allclose(first, second)
    first, _ = views_of(images, index)
    assert not torch.allclose(first[0], first[1])
    assert not torch.allclose(first, views_of(images, index, seed=1)[0])
    assert not torch.allclose(first, views_of(images, index, epoch=1)[0])
    assert torch.equal(first, views_of(images, index)[0])


def test_crops_have_the_given_areas_and_ratios() -> None:
    view = View(crop_scale=(0.2, 0.6))
    sampled = sample_parameters(view, hash_key(0), np.arange(20_000), 3, 64, 64)
    assert (sampled.top + sampled.height <= 64).all()
    assert (sampled.left + sampled.width <= 64).all()
    assert (np.stack([sampled.top, sampled.left]) >= 0).all()
    share = sampled.height * sampled.width / 64**2
    assert share.mean() == pytest.approx(0.4, abs=0.01)
    assert 0.18 < share.min() < share.max() < 0.62
    log_ratio = np.log(sampled.width / sampled.height)
    assert abs(log_ratio.mean()) < 0.01
    assert log_ratio.std() == pytest.approx(2 * math.log(4 / 3) / math.sqrt(12), rel=0.05)


def test_probabilities_are_kept() -> None:
    view = View(flip=0.3, vertical_flip=0.1, jitter=0.6, grayscale=0.2, blur=0.4, solarize=0.25)
    sampled = sample_parameters(view, hash_key(1), np.arange(20_000), 3, 8, 8)
    for happened, probability in [
        (sampled.flip, 0.3),
        (sampled.vertical_flip, 0.1),
        (sampled.brightness != 1, 0.6),
        (sampled.grayscale, 0.2),
        (sampled.sigma > 0, 0.4),
        (sampled.solarize, 0.25),
    ]:
        assert float(happened.mean()) == pytest.approx(probability, abs=0.015)
    orders = {tuple(order) for order in sampled.order.tolist()}
    assert len(orders) == 24


def test_five_channels_have_independent_factors() -> None:
    sampled = sample_parameters(View(), hash_key(2), np.arange(50), 5, 8, 8)
    assert sampled.brightness.shape == (50, 5)
    views = views_of(uint8(4, channels=5), torch.arange(4))
    assert views[0].shape == (4, 5, 80, 80)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 5),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    size=st.integers(1, 40),
    policy=st.sampled_from(sorted(POLICIES)),
)
def test_any_size_gives_values_in_range(
    batch: int, channels: int, height: int, width: int, size: int, policy: str
) -> None:
    generator = torch.Generator().manual_seed(height)
    images = torch.randint(
        0, 256, (batch, channels, height, width), dtype=torch.uint8, generator=generator
    )
    views = draw_views(
        images,
        torch.arange(batch),
        POLICIES[policy](100),
        size=size,
        seed=0,
        epoch=0,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
    )
    sizes = view_sizes(POLICIES[policy](100), size)
    for view, side in zip(views, sizes, strict=True):
        assert view.shape == (batch, channels, side, side)
        assert torch.isfinite(view).all()
        assert 0 <= float(view.min()) <= float(view.max()) <= 1


def test_views_are_views_in_zero_to_one_normalized() -> None:
    images, index = uint8(16), torch.arange(16)
    arguments: dict[str, Any] = {"size": 80, "seed": 0, "epoch": 0}
    plain = draw_views(
        images, index, POLICIES["byol"](80), **arguments, mean=(0.0,) * 3, std=(1.0,) * 3
    )
    mean, std = (0.4, 0.3, 0.6), (0.2, 0.3, 0.4)
    views = draw_views(images, index, POLICIES["byol"](80), **arguments, mean=mean, std=std)
    for view, other in zip(views, plain, strict=True):
        expected = (other - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        torch.testing.assert_close(view, expected, rtol=0, atol=1e-5)


def test_views_are_normalized_and_channels_last() -> None:
    images = uint8(64, side=16)
    (view, _) = draw_views(
        images,
        torch.arange(64),
        (PLAIN, PLAIN),
        size=16,
        seed=0,
        epoch=0,
        mean=(0.1, 0.2, 0.3),
        std=(0.5, 0.25, 2.0),
    )
    mean = torch.tensor([0.1, 0.2, 0.3])[:, None, None]
    std = torch.tensor([0.5, 0.25, 2.0])[:, None, None]
    torch.testing.assert_close(view * std + mean, images / 255, rtol=0, atol=1e-5)
    assert view.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "wrong", [{"flip": 1.5}, {"hue": 0.6}, {"crop_scale": (0.0, 1.0)}, {"blur_sigma": (2.0, 1.0)}]
)
def test_impossible_settings_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(NonegError, match=next(iter(wrong))):
        View(**wrong)  # type: ignore[arg-type]


def test_transposing_exchanges_rows_and_columns() -> None:
    images = square()
    transposed = rendered(images, still(images, transpose=[False, True, False]), 20, DIHEDRAL)
    torch.testing.assert_close(transposed[1], images[1].transpose(1, 2), rtol=0, atol=1e-6)
    torch.testing.assert_close(transposed[::2], images[::2], rtol=0, atol=1e-6)


def test_the_eight_orientations_of_a_square_are_equally_likely() -> None:
    sampled = sample_parameters(
        POLICIES["dihedral"](32)[0], hash_key(4), np.arange(16_000), 3, 32, 32
    )
    orientations = 4 * sampled.flip + 2 * sampled.vertical_flip + 1 * sampled.transpose
    assert stats.chisquare(np.bincount(orientations, minlength=8)).pvalue > 1e-4


def test_views_of_an_earlier_call_are_overwritten() -> None:
    images, index = uint8(), torch.arange(8)
    first = views_of(images, index)
    expected = [view.clone() for view in views_of(images, index, epoch=1)]
    arguments: dict[str, Any] = {"size": 80, "seed": 0, "epoch": 1}
    arguments |= {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    again = draw_views(images, index, POLICIES["byol"](80), **arguments, out=first)
    for view, before, other in zip(again, first, expected, strict=True):
        assert view.data_ptr() == before.data_ptr()
        assert torch.equal(view, other)
    fewer = draw_views(images[:3], index[:3], POLICIES["byol"](80), **arguments, out=first)
    for view, other in zip(fewer, expected, strict=True):
        torch.testing.assert_close(view, other[:3], rtol=0, atol=1e-6)


@pytest.mark.parametrize("policy", ["byol", "dihedral", "multi_crop"])
def test_views_do_not_depend_on_how_many_images_are_processed_at_once(
    policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, index = uint8(7, side=64), torch.arange(7)
    whole = views_of(images, index, policy)
    monkeypatch.setitem(_WORKING_BYTES, "cpu", 3 * 4 * 3 * 80 * 80)
    for view, other in zip(views_of(images, index, policy), whole, strict=True):
        torch.testing.assert_close(view, other, rtol=0, atol=1e-6)


def test_devices_without_embedding_bag_get_the_same_sums() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(40, 9, generator=generator)
    index = torch.randint(0, 40, (25, 3), generator=generator)
    weight = torch.rand(25, 3, generator=generator) - 0.5
    expected = (weight[:, :, None] * rows[index]).sum(dim=1)
    torch.testing.assert_close(gather_and_sum(rows, index, weight), expected)
    # Three images of two channels, each image with different taps.
    planes = rows[:36].view(3, 2, 6, 9)
    taps = Taps(torch.randint(0, 6, (3, 4, 5), generator=generator), torch.rand(3, 4, 5))
    summed = sum_rows(planes, taps_of_rows(taps, 2, 6, torch.arange(3)))
    for image, channel in np.ndindex(3, 2):
        chosen = planes[image, channel][taps.index[image]]
        expected = (taps.weight[image][:, :, None] * chosen).sum(dim=1)
        torch.testing.assert_close(summed[image, channel], expected)


def test_multi_crop_views_have_two_sizes() -> None:
    views = views_of(uint8(2, side=100), torch.arange(2), "multi_crop", size=96)
    assert [view.shape[-1] for view in views] == [96] * 2 + [40] * 6


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_small_views_are_not_blurred_and_large_ones_as_in_the_papers(name: str) -> None:
    assert all(view.blur == 0 for view in POLICIES[name](32))
    papers = {
        "byol": (1.0, 0.1),
        "barlow_twins": (1.0, 0.1),
        "vicreg": (0.5, 0.5),
        "simclr": (0.5, 0.5),
        "simsiam": (0.5, 0.5),
    }
    if name in papers:
        assert tuple(view.blur for view in POLICIES[name](224)) == papers[name]
