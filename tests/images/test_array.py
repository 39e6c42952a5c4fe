"""Arrays, tensors, .npy and .npz files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from noneg.errors import NonegError
from noneg.images import find_source, load_images

GENERATOR = np.random.default_rng(0)


def noise(*shape: int, dtype=np.uint8) -> np.ndarray:
    return GENERATOR.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def load(data, channels: int, size: int):
    return load_images(find_source(data), channels=channels, size=size)


def test_images_of_the_right_size_are_not_changed_whatever_holds_them(tmp_path: Path) -> None:
    array = noise(5, 8, 8, 3)
    np.save(tmp_path / "x.npy", array)
    np.savez(tmp_path / "x.npz", images=array)
    sources = (
        array,
        torch.from_numpy(array.transpose(0, 3, 1, 2).copy()),
        tmp_path / "x.npy",
        str(tmp_path / "x.npz"),
    )
    for data in sources:
        images = load(data, 3, 8)
        assert np.array_equal(images.pixels, array.transpose(0, 3, 1, 2))
        assert images.names == ("0", "1", "2", "3", "4")
        assert images.labels is None
        assert images.skipped == ()


def test_the_pixels_are_a_copy_of_the_array() -> None:
    array = noise(2, 4, 4)
    pixels = load(array, 1, 4).pixels
    before = pixels.copy()
    array[:] = 0
    assert np.array_equal(pixels, before)


def test_channels() -> None:
    gray, color, five = noise(2, 8, 8), noise(2, 8, 8, 3), noise(2, 8, 8, 5)
    assert find_source(gray).natural_channels() == 1
    assert find_source(five).natural_channels() == 5
    assert np.array_equal(load(gray, 3, 8).pixels, np.repeat(gray[:, None], 3, 1))
    expected = np.asarray(Image.fromarray(color[1]).convert("L"))
    assert np.array_equal(load(color, 1, 8).pixels[1, 0], expected)
    assert np.array_equal(load(five, 5, 8).pixels, five.transpose(0, 3, 1, 2))
    transparent = np.concatenate([color, np.zeros((2, 8, 8, 1), np.uint8)], axis=3)
    assert load(transparent, 1, 8).pixels.min() == 255
    for data, channels in ((five, 3), (color, 5), (noise(2, 8, 8, 2), 1)):
        available = data.shape[3]
        with pytest.raises(NonegError, match=f"{available} channels and {channels} were asked for"):
            load(data, channels, 8)


@given(
    height=st.integers(1, 40),
    width=st.integers(5, 40),
    channels=st.sampled_from([1, 2, 3, 4, 7]),
    size=st.integers(1, 24),
    wide=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_size(height: int, width: int, channels: int, size: int, wide: bool) -> None:
    height += 4  # with fewer than five rows, the rows would look like channels
    array = np.full((2, height, width, channels), 40, np.uint8)
    array[..., 0] = 200
    data = array.astype(np.uint16) * 257 if wide else array
    pixels = load(data, channels, size).pixels
    assert pixels.shape == (2, channels, size, size)
    assert (pixels[:, 0] == 200).all()
    assert (pixels[:, 1:] == 40).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_resizing_equals_antialiased_interpolation(channels: int) -> None:
    # On a smooth ramp, the only difference is in rounding.
    ramp = np.linspace(0, 255, 40).astype(np.uint8)
    array = np.broadcast_to(ramp[None, :, None, None], (1, 40, 40, channels)).copy()
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(array.transpose(0, 3, 1, 2).copy()).float(),
        size=(10, 10),
        mode="bilinear",
        antialias=True,
    )
    found = load(array, channels, 10).pixels.astype(np.float32)
    assert np.abs(found - expected.numpy()).max() <= 1


def test_uint16_is_divided_by_257() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(1, 256, 256)
    expected = np.round(values.astype(np.float64) / 257).astype(np.uint8)
    assert np.array_equal(load(values, 1, 256).pixels[:, 0], expected)
    assert np.array_equal(load(values.astype(">u2"), 1, 256).pixels[:, 0], expected)
    assert np.array_equal(load(torch.from_numpy(values), 1, 256).pixels[:, 0], expected)


def test_the_warning_about_dark_uint16_tells_what_to_do() -> None:
    with pytest.warns(
        UserWarning, match=r"is 4000, but uint16 goes up to 65535.*Multiply the array by 16"
    ) as caught:
        find_source(np.full((2, 4, 4), 4000, np.uint16))
    assert len(caught) == 1
    find_source(np.full((2, 4, 4), 5000, np.uint16))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (np.zeros((2, 4, 4), np.float32), r"float32.*\* 255"),
        (torch.zeros(2, 3, 4, 4), r"float32.*\* 255"),
        (np.zeros((2, 4, 4), np.int64), r"int64.*astype\('uint8'\)"),
        (np.zeros((2, 4, 4), bool), r"bool.*\* 255"),
        (np.zeros((4, 4), np.uint8), r"\(4, 4\).*images\[None\]"),
        (np.zeros((0, 4, 4), np.uint8), r"\(0, 4, 4\).*at least one image"),
        (np.zeros((2, 0, 4, 3), np.uint8), r"\(2, 0, 4, 3\).*no pixels"),
        (np.zeros((2, 3, 9, 9), np.uint8), r"\(2, 3, 9, 9\).*transpose\(0, 2, 3, 1\)"),
        (torch.zeros(2, 9, 9, 3, dtype=torch.uint8), r"\(2, 9, 9, 3\).*permute\(0, 3, 1, 2\)"),
    ],
)
def test_errors_show_dtype_or_shape_and_the_conversion(data, words: str) -> None:
    with pytest.raises(NonegError, match=words):
        find_source(data)


def test_labels(tmp_path: Path) -> None:
    array = noise(3, 4, 4)
    np.save(tmp_path / "x.npy", array)
    assert find_source(tmp_path / "x.npy").labels is None
    np.save(tmp_path / "x.labels.npy", np.array([2, 0, 1], np.uint8))
    np.savez(tmp_path / "x.npz", images=array, labels=[2, 0, 1])
    sources = (
        find_source(tmp_path / "x.npy"),
        find_source(tmp_path / "x.npz"),
        find_source(array, labels=[2, 0, 1]),
        find_source(array, labels=torch.tensor([2, 0, 1])),
    )
    for source in sources:
        assert source.labels is not None
        assert source.labels.dtype == np.int64
        assert load_images(source, channels=1, size=4).labels.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, 1], "3 images but 2 labels"),
        (np.zeros((3, 1), int), r"3 images but labels of shape \(3, 1\)"),
        (np.array([0.0, 1.0, 2.0]), "float64.*return_inverse"),
        (np.array([0, -1, 2]), "smallest label.* is -1.*give labels from 0"),
    ],
)
def test_wrong_labels(labels, words: str) -> None:
    with pytest.raises(NonegError, match=words):
        find_source(noise(3, 4, 4), labels=labels)


def test_files_that_cannot_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "empty.npy").touch()
    (tmp_path / "text.npz").write_text("no archive")
    np.save(tmp_path / "objects.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "other.npz", pictures=noise(2, 4, 4))
    (tmp_path / "renamed.npz").write_bytes((tmp_path / "objects.npy").read_bytes())
    for name in ("empty.npy", "text.npz", "objects.npy", "renamed.npz"):
        with pytest.raises(NonegError, match=f"{name} cannot be loaded.*np.save"):
            find_source(tmp_path / name)
    with pytest.raises(NonegError, match=r"other.npz holds pictures, but no array named images"):
        find_source(tmp_path / "other.npz")
