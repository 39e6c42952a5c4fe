"""The table has what viewers of embeddings read: pictures, a map, and neighbors by row."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image
from test_export import make_encoder

from noneg.cli import main
from noneg.collection import plane
from noneg.collection.embedded import embed_collection
from noneg.collection.neighbors import comparable, nearest
from noneg.collection.plane import map_of


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for number in range(20):
        folder = tmp_path / "photos" / ("a" if number < 10 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        small = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((160, 120)).save(folder / f"{number:02}.jpg")
    return tmp_path / "photos"


def test_the_columns_are_those_that_viewers_read(photos: Path, tmp_path: Path) -> None:
    make_encoder().save(tmp_path / "encoder")
    out = tmp_path / "photos.parquet"
    assert (
        main(["embed", str(tmp_path / "encoder"), str(photos), "--out", str(out), "--pictures"])
        == 0
    )
    table = pyarrow.parquet.read_table(out)
    rows = table.to_pylist()
    assert [row["label"] for row in rows] == ["a"] * 10 + ["b"] * 10
    assert rows[11]["name"] == rows[11]["image"]["path"] == "b/11.jpg"
    with Image.open(io.BytesIO(rows[0]["image"]["bytes"])) as picture:
        assert (picture.format, picture.size) == ("JPEG", (128, 128))
    collection = embed_collection(make_encoder(), photos)
    np.testing.assert_allclose([row["embedding"] for row in rows], collection.vectors, atol=1e-5)
    (vectors,) = comparable(collection.vectors)
    around = nearest(vectors, vectors, 10, same=True)
    assert [row["neighbors"]["ids"] for row in rows] == around.index.tolist()
    np.testing.assert_allclose(
        [row["neighbors"]["distances"] for row in rows], 1 - around.cosine, atol=1e-4
    )
    places = np.array([[row["projection_x"], row["projection_y"]] for row in rows])
    assert np.isfinite(places).all()
    assert len(np.unique(places, axis=0)) == 20


def test_images_that_are_not_laid_out_are_beside_their_neighbors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plane, "LAID_OUT", 100)
    random = np.random.default_rng(0)
    groups = np.arange(300) % 3
    points = (6 * np.eye(8)[groups] + random.normal(size=(300, 8))).astype(np.float32)
    found = map_of(points)
    centers = np.stack([found[groups == each].mean(axis=0) for each in range(3)])
    nearest_center = ((found[:, None] - centers) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest_center == groups).mean() > 0.95


def test_few_or_equal_images_have_a_place() -> None:
    assert map_of(np.eye(3, dtype=np.float32)).shape == (3, 2)
    assert np.isfinite(map_of(np.ones((8, 4), np.float32))).all()
