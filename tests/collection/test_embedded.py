"""Embeddings are kept beside the images, and only used for the same encoder and images."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pixel_encoder import Pixels, pixel_encoder

from noneg.collection.embedded import FOLDER, embed_collection, fingerprint
from noneg.encoder import Encoder
from noneg.errors import NonegError
from noneg.images import find_source


def calls(encoder: Encoder) -> int:
    assert isinstance(encoder.module, Pixels)
    return encoder.module.calls


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(5):
        pixels = random.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "2b.png").write_bytes(b"no image")
    return folder


def test_the_second_time_nothing_is_embedded(photos: Path) -> None:
    encoder = pixel_encoder()
    first = embed_collection(encoder, str(photos))
    assert calls(encoder) == 1
    second = embed_collection(encoder, photos)
    assert calls(encoder) == 1
    assert (first.vectors == second.vectors).all()
    assert [second.name(each) for each in range(5)] == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    assert [each.name for each in second.skipped] == ["2b.png"]
    assert (first.read(3, 16) == second.read(3, 16)).all()
    # It is hidden and beside the images, so it is not one of them.
    assert [each.name for each in photos.parent.iterdir() if each != photos] == [FOLDER]
    assert len(find_source(photos)) == 6


def test_other_images_or_another_encoder_are_embedded_anew(photos: Path) -> None:
    encoder = pixel_encoder()
    embed_collection(encoder, photos)
    (photos / "4.png").unlink()
    fewer = embed_collection(encoder, photos)
    assert (calls(encoder), len(fewer)) == (2, 4)
    before = os.stat(photos / "3.png")
    Image.new("RGB", (40, 40), "red").save(photos / "3.png")
    os.utime(photos / "3.png", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    changed = embed_collection(encoder, photos)
    assert calls(encoder) == 3
    assert not (changed.vectors[3] == fewer.vectors[3]).all()
    other = pixel_encoder()
    other.module.bias = torch.nn.Parameter(torch.zeros(1))
    assert fingerprint(other) != fingerprint(encoder)
    embed_collection(other, photos)
    assert calls(other) == 1
    embed_collection(encoder, photos, cache=False)
    assert calls(encoder) == 4


@pytest.mark.parametrize("content", [b"", b"\x08\0\0\0\0\0\0\0{}", os.urandom(400)])
def test_a_damaged_cache_is_ignored_and_replaced(photos: Path, content: bytes) -> None:
    encoder = pixel_encoder()
    expected = embed_collection(encoder, photos).vectors
    (kept,) = (photos.parent / FOLDER).iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(content)
    assert (embed_collection(encoder, photos).vectors == expected).all()
    assert calls(encoder) == 2
    kept.write_bytes(whole[:-5])
    assert (embed_collection(encoder, photos).vectors == expected).all()
    assert (embed_collection(encoder, photos).vectors == expected).all()
    assert calls(encoder) == 3


def test_where_nothing_can_be_written_nothing_is_kept(photos: Path) -> None:
    (photos.parent / FOLDER).write_text("a file is in the way")
    encoder = pixel_encoder()
    assert len(embed_collection(encoder, photos)) == 5
    assert len(embed_collection(encoder, photos)) == 5
    assert calls(encoder) == 2


def test_images_in_memory_are_not_kept_and_files_of_arrays_are(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    encoder = pixel_encoder()
    embed_collection(encoder, images)
    assert list(tmp_path.iterdir()) == []
    np.save(tmp_path / "images.npy", images)
    for _ in range(2):
        found = embed_collection(encoder, tmp_path / "images.npy")
    assert calls(encoder) == 2
    assert found.name(3) == "3"


def test_embeddings_that_are_not_finite_are_refused() -> None:
    encoder = pixel_encoder()
    encoder.module.register_forward_hook(lambda *_: torch.full((2, 192), torch.nan))
    with pytest.raises(NonegError, match="not finite"):
        embed_collection(encoder, np.zeros((2, 32, 32, 3), np.uint8))
