"""What a run decides about its images before the first step."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import noneg
from noneg.errors import NonegError
from noneg.images import PixelsOnDemand, find_source
from noneg.training import data
from noneg.training.build import build_method
from noneg.training.config import make_config
from noneg.training.data import choose_cache, measure_normalization
from noneg.training.plan import plan_of


def test_images_are_kept_where_they_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noneg.images.load.available_memory", lambda: 4_000)
    monkeypatch.setattr(data, "free_disk", lambda _: 10_000)
    assert choose_cache(1_000, tmp_path) == "memory"
    assert choose_cache(1_001, tmp_path) == "disk"
    assert choose_cache(5_000, tmp_path) == "disk"
    assert choose_cache(5_001, tmp_path) == "none"


def test_normalization_is_the_mean_and_standard_deviation_of_the_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (250, 3, 5, 5), dtype=np.uint8)
    pixels[:, 1] //= 3
    pixels[:, 2] = 7
    mean, std = measure_normalization(pixels)
    shares = pixels.astype(np.float64) / 255
    np.testing.assert_allclose(mean, shares.mean(axis=(0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(std[:2], shares.std(axis=(0, 2, 3))[:2], atol=1e-6)
    assert std[2] == pytest.approx(1 / 255, abs=1e-6)
    assert measure_normalization(pixels, most=100) == measure_normalization(pixels[::3])
    on_demand = PixelsOnDemand(find_source(pixels.transpose(0, 2, 3, 1).copy()), 3, 5)
    assert measure_normalization(on_demand) == (mean, std)


def test_where_the_images_are_kept_does_not_change_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = np.random.default_rng(0)
    for number in range(40):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (36, 40, 3), dtype=np.uint8)).save(path)
    weights = {}
    for cache in ("memory", "disk", "none"):
        out = tmp_path / cache
        settings = {"method": "simsiam", "epochs": 2, "batch_size": 16, "size": 16}
        noneg.train(tmp_path / "photos", cache=cache, out=str(out), **settings)
        weights[cache] = (out / "encoder" / "encoder.safetensors").read_bytes()
        assert ("decoded again" in capsys.readouterr().out) == (cache == "none")
    assert weights["memory"] == weights["disk"] == weights["none"]
    assert (tmp_path / "disk" / "images.bytes").exists()


def test_unreadable_images_on_demand_are_named_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    generator = np.random.default_rng(0)
    for number in range(20):
        pixels = generator.integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{number:02}.png")
    (photos / "07.png").write_text("not an image")
    settings = {"method": "simsiam", "epochs": 1, "batch_size": 10, "size": 16}
    noneg.train(photos, cache="none", out=str(tmp_path / "run"), **settings)
    assert "skipped 1 files, the first 07.png" in capsys.readouterr().out
    assert "07.png" in (tmp_path / "run" / "skipped.csv").read_text()


def test_a_backbone_of_one_size_cannot_take_views_of_two() -> None:
    settings = {"size": 32, "channels": 3, "batch_size": 4, "views": "multi_crop"}
    build_method(plan_of(make_config(backbone="small_resnet", **settings)))
    with pytest.raises(NonegError, match="takes images of 32 px, but some of the views have 16 px"):
        build_method(plan_of(make_config(backbone="vit_tiny_patch16_224", **settings)))
