"""A folder of image files: which files are found, their labels, and their pixels."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noneg.errors import NonegError
from noneg.images import Unreadable, find_source

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def save(path: Path, color=RED, size=(8, 8), **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path, **options)
    return path


def read(path: Path, channels: int = 3, size: int = 8) -> np.ndarray:
    """The pixels of a file, read through a folder source."""
    source = find_source(path.parent)
    names = [source.name(index) for index in range(len(source))]
    return source.read(names.index(path.name), channels, size)


def reason(path: Path) -> str:
    with pytest.raises(Unreadable) as caught:
        read(path)
    return str(caught.value)


def corners(width: int = 8, height: int = 8) -> Image.Image:
    """Red top left, green top right, blue bottom left, white bottom right."""
    picture = Image.new("RGB", (width, height))
    half_x, half_y = width // 2, height // 2
    picture.paste(RED, (0, 0, half_x, half_y))
    picture.paste(GREEN, (half_x, 0, width, half_y))
    picture.paste(BLUE, (0, half_y, half_x, height))
    picture.paste(WHITE, (half_x, half_y, width, height))
    return picture


def test_finds_every_extension_at_every_depth_in_order(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "deep/er/c.webp", "deep/d.bmp", "z.TIFF", "y.tif", "x.JPEG"):
        save(tmp_path / name)
    for name in (".hidden.png", ".cache/e.png", "deep/.trash/f.png"):
        save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    source = find_source(tmp_path)
    assert [source.name(index) for index in range(len(source))] == [
        "a.jpg",
        "b.PNG",
        "deep/d.bmp",
        "deep/er/c.webp",
        "x.JPEG",
        "y.tif",
        "z.TIFF",
    ]
    assert str(tmp_path) in source.description
    assert source.natural_channels() == 3


def test_first_level_subfolder_is_the_class(tmp_path: Path) -> None:
    for name in ("dog/x/1.png", "cat/2.png", "dog/3.png"):
        save(tmp_path / name)
    source = find_source(tmp_path)
    assert source.classes == ("cat", "dog")
    assert source.labels is not None
    assert source.labels.dtype == np.int64
    assert source.labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize("names", [("dog/1.png", "dog/2.png"), ("dog/1.png", "cat/2.png", "3.png")])
def test_no_classes_unless_two_subfolders_hold_all_images(tmp_path: Path, names) -> None:
    for name in names:
        save(tmp_path / name)
    source = find_source(tmp_path)
    assert source.labels is None
    assert source.classes is None


def test_links_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "1.png")
    data = tmp_path / "data"
    save(data / "real" / "2.png")
    (data / "again").symlink_to(data / "real")
    (data / "loop").symlink_to(data)
    (data / "out").symlink_to(tmp_path / "elsewhere")
    (data / "file.png").symlink_to(tmp_path / "elsewhere" / "1.png")
    (data / "broken.png").symlink_to(tmp_path / "nowhere.png")
    source = find_source(data)
    names = [source.name(index) for index in range(len(source))]
    assert names == ["broken.png", "file.png", "out/1.png", "real/2.png"]
    assert "link to nothing" in reason(data / "broken.png")


def test_odd_names(tmp_path: Path) -> None:
    odd = ["with space.png", "снег ❄.png", os.fsdecode(b"bad\xff.png"), "a,b\nc.png"]
    for name in odd:
        (tmp_path / name).write_bytes(save(tmp_path / "seed" / "x.png").read_bytes())
    source = find_source(tmp_path)
    assert {source.name(index) for index in range(len(source))} == {*odd, "seed/x.png"}
    for index in range(len(source)):
        assert source.read(index, 3, 8)[0].min() == 255


def test_errors_name_the_folder_and_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").touch()
    with pytest.raises(NonegError, match=r"no image.*\.jpg, \.jpeg, \.png") as caught:
        find_source(tmp_path)
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(NonegError, match=r"neither \.npy nor \.npz") as caught:
        find_source(tmp_path / "film.mp4")
    assert "film.mp4" in str(caught.value)
    with pytest.raises(NonegError, match=r"nothing-like-it.*shapes, cifar10"):
        find_source("nothing-like-it")
    with pytest.raises(NonegError, match=r"5 channels.*1 \(gray\) or 3"):
        find_source(save(tmp_path / "x.png").parent).read(0, 5, 8)


def test_natural_size_is_the_median_short_side(tmp_path: Path) -> None:
    for number, size in enumerate([(10, 50), (60, 20), (30, 30)]):
        save(tmp_path / f"{number}.png", size=size)
    (tmp_path / "broken.png").touch()
    assert find_source(tmp_path).natural_size() == 20


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "tiff", "webp"])
def test_exif_orientation(tmp_path: Path, orientation: int, ending: str) -> None:
    # The colors at top left, top right, bottom left and bottom right, by the EXIF standard.
    expected = {
        1: (RED, GREEN, BLUE, WHITE),
        2: (GREEN, RED, WHITE, BLUE),
        3: (WHITE, BLUE, GREEN, RED),
        4: (BLUE, WHITE, RED, GREEN),
        5: (RED, BLUE, GREEN, WHITE),
        6: (BLUE, RED, WHITE, GREEN),
        7: (WHITE, GREEN, BLUE, RED),
        8: (GREEN, WHITE, RED, BLUE),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"x.{ending}"
    options = {"quality": 95, "subsampling": 0} if ending == "jpg" else {}
    corners(64, 64).save(path, exif=exif, **options)
    pixels = read(path, size=64).astype(int)
    found = [pixels[:, y, x] for y in (12, 52) for x in (12, 52)]
    assert np.abs(np.array(found) - np.array(expected)).max() < 12


@pytest.mark.parametrize(
    ("mode", "color", "ending", "expected"),
    [
        ("1", 1, "png", (255, 255, 255)),
        ("L", 77, "png", (77, 77, 77)),
        ("LA", (0, 0), "png", (255, 255, 255)),
        ("LA", (0, 102), "png", (153, 153, 153)),
        ("RGBA", (255, 0, 0, 0), "png", (255, 255, 255)),
        ("RGBA", (255, 0, 0, 51), "png", (255, 204, 204)),
        ("RGBA", (255, 0, 0, 255), "webp", (255, 0, 0)),
        ("CMYK", (255, 0, 0, 0), "tiff", (0, 255, 255)),
        ("I;16", 257 * 100, "png", (100, 100, 100)),
        ("I;16", 257 * 100 + 129, "tiff", (101, 101, 101)),
        ("I", 257 * 100, "tiff", (100, 100, 100)),
        ("F", 0.5, "tiff", (128, 128, 128)),
    ],
)
def test_modes_look_as_in_an_image_viewer(tmp_path: Path, mode, color, ending, expected) -> None:
    path = tmp_path / f"x.{ending}"
    Image.new(mode, (8, 8), color).save(path, **({"lossless": True} if ending == "webp" else {}))
    pixels = read(path)
    assert pixels.shape == (3, 8, 8)
    assert np.abs(pixels.astype(int) - np.array(expected)[:, None, None]).max() <= 1
    gray = read(path, channels=1)
    luminance = round(0.299 * expected[0] + 0.587 * expected[1] + 0.114 * expected[2])
    assert gray.shape == (1, 8, 8)
    assert np.abs(gray.astype(int) - luminance).max() <= 1


def test_cmyk_jpeg_is_not_inverted(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "x.jpg", quality=95)
    assert np.abs(read(tmp_path / "x.jpg").mean((1, 2)) - RED).max() < 6


def test_palette_with_transparency(tmp_path: Path) -> None:
    picture = Image.new("P", (8, 8), 0)
    picture.putpalette([*RED, *BLUE])
    picture.paste(1, (0, 4, 8, 8))
    picture.save(tmp_path / "plain.png")
    picture.save(tmp_path / "one.png", transparency=0)
    picture.save(tmp_path / "bytes.png", transparency=bytes([51, 255]))
    for name, top in {"plain": RED, "one": WHITE, "bytes": (255, 204, 204)}.items():
        pixels = read(tmp_path / f"{name}.png")
        assert tuple(pixels[:, 0, 0]) == top
        assert tuple(pixels[:, 7, 0]) == BLUE


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in (GREEN, RED)]
    for ending, options in {"webp": {"lossless": True}, "png": {}, "tiff": {}}.items():
        path = tmp_path / f"x.{ending}"
        frames[0].save(path, save_all=True, append_images=frames[1:], **options)
        assert tuple(read(path)[:, 4, 4]) == GREEN


def test_images_of_the_right_size_are_not_changed(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, 16, 16), dtype=np.uint8)
    Image.fromarray(noise.transpose(1, 2, 0)).save(tmp_path / "x.png")
    assert np.array_equal(read(tmp_path / "x.png", size=16), noise)
    Image.fromarray(noise[0]).save(tmp_path / "gray.png")
    assert np.array_equal(read(tmp_path / "gray.png", channels=1, size=16), noise[:1])


def test_short_side_of_the_right_size_is_cropped_exactly(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 21, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "x.png")
    expected = noise[:, 2:18].transpose(2, 0, 1)
    assert np.array_equal(read(tmp_path / "x.png", size=16), expected)


def test_large_jpeg_looks_like_a_full_decode(tmp_path: Path) -> None:
    waves = np.sin(np.linspace(0, 30, 900))[:, None] * np.cos(np.linspace(0, 40, 1200))[None]
    picture = Image.fromarray(np.repeat(((waves + 1) * 127).astype(np.uint8)[..., None], 3, 2))
    picture.save(tmp_path / "x.jpg", quality=95)
    with Image.open(tmp_path / "x.jpg") as whole:
        expected = whole.resize((32, 32), Image.Resampling.BILINEAR, box=(150, 0, 1050, 900))
    found = read(tmp_path / "x.jpg", size=32).astype(int)
    assert np.abs(found - np.asarray(expected).transpose(2, 0, 1)).max() <= 4


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_large_rotated_jpeg_is_the_rotation_of_the_upright_one(tmp_path, orientation) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((1301, 907), Image.Resampling.BICUBIC)
    picture.save(tmp_path / "x.jpg", quality=95, exif=exif)
    turned = {1: 0, 3: 2, 6: 3}[orientation]
    expected = np.rot90(np.asarray(picture), turned)
    with Image.fromarray(np.ascontiguousarray(expected)) as upright:
        upright.save(tmp_path / "upright.png")
    difference = read(tmp_path / "x.jpg", size=32).astype(int) - read(
        tmp_path / "upright.png", size=32
    )
    assert np.abs(difference).max() <= 8


@pytest.mark.parametrize("shape", [(30000, 2), (1, 500), (1, 1), (3, 5)])
def test_extreme_shapes(tmp_path: Path, shape) -> None:
    save(tmp_path / "x.png", GREEN, size=shape)
    pixels = read(tmp_path / "x.png", size=24)
    assert pixels.shape == (3, 24, 24)
    assert tuple(pixels[:, 11, 11]) == GREEN


def test_reasons_for_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    assert reason(tmp_path / "empty.png") == "empty file"
    (tmp_path / "text.png").write_text("Dear diary")
    assert "not an image" in reason(tmp_path / "text.png")
    for ending in ("jpg", "png", "webp", "tiff", "bmp"):
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        path = tmp_path / f"truncated.{ending}"
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert reason(path)
    assert "truncated" in reason(tmp_path / "truncated.jpg")
    Image.new("F", (8, 8), 3.5).save(tmp_path / "float.tiff")
    assert "3.5" in reason(tmp_path / "float.tiff")
    Image.new("F", (8, 8), float("nan")).save(tmp_path / "nan.tiff")
    assert "nan" in reason(tmp_path / "nan.tiff")
    Image.new("I", (8, 8), 70000).save(tmp_path / "large.tiff")
    assert "70000" in reason(tmp_path / "large.tiff")


@pytest.mark.parametrize("shape", [(14000, 14286), (40000, 30000), (65535, 65535)])
def test_too_large_from_the_header(tmp_path: Path, shape) -> None:
    path = save(tmp_path / "x.bmp", size=(4, 4))
    content = bytearray(path.read_bytes())
    content[18:26] = shape[0].to_bytes(4, "little") + shape[1].to_bytes(4, "little")
    path.write_bytes(content)
    assert reason(path) == f"too large: {shape[0]} x {shape[1]} pixels"


def test_pillow_limit_and_warnings_are_left_as_they_were(tmp_path: Path) -> None:
    limit, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    # Between Pillow's limit and ours: Pillow would warn, and in tests a warning is an error.
    Image.new("1", (9500, 9500), 1).save(tmp_path / "large.png")
    assert read(tmp_path / "large.png", channels=1).min() == 255
    broken = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\x00" + b"\x01" * 20
    save(tmp_path / "exif.jpg", exif=broken)
    assert read(tmp_path / "exif.jpg").shape == (3, 8, 8)
    assert limit == Image.MAX_IMAGE_PIXELS
    assert warnings.filters == filters


def test_no_other_program_runs_for_a_file_with_a_wrong_extension(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EOF\n")
    assert "not an image" in reason(tmp_path / "x.png")
