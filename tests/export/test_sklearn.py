"""The transformer behaves as scikit-learn's do, in pipelines, clones, pickles and grid searches."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import (
    check_no_attributes_set_in_init,
    check_parameters_default_constructible,
)
from test_export import make_encoder, pictures

import noneg
from noneg.errors import NonegError
from noneg.sklearn import ImageEncoder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("encoder")
    make_encoder().save(directory)
    return str(directory)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    paths = []
    for number in range(12):
        color = (250, 20, 20) if number % 2 else (20, 20, 250)
        noise = pictures(1, 3, 40)[0].permute(1, 2, 0).numpy() // 4
        pixels = np.clip(np.array(color) + noise, 0, 255)
        paths.append(tmp_path / f"{number:02}.png")
        Image.fromarray(pixels.astype(np.uint8)).save(paths[-1])
    return paths


def test_all_kinds_of_images_give_what_the_encoder_gives(run: str, photos: list[Path]) -> None:
    expected = noneg.load(run).embed(photos[0].parent)
    transformer = ImageEncoder(run)
    opened = [Image.open(path) for path in photos]
    arrays = np.stack([np.asarray(each) for each in opened])
    for images in (
        photos,
        [str(path) for path in photos],
        np.array([str(path) for path in photos], dtype=object),
        np.array([[str(path)] for path in photos], dtype=object),
        opened,
        list(arrays),
        arrays,
    ):
        np.testing.assert_allclose(transformer.transform(images), expected, atol=1e-4)
    assert transformer.fit_transform(photos).dtype == np.float32


def test_it_is_cloned_pickled_and_searched(run: str, photos: list[Path]) -> None:
    labels = np.arange(12) % 2
    pipeline = make_pipeline(ImageEncoder(run, batch_size=4), LogisticRegression())
    search = GridSearchCV(pipeline, {"logisticregression__C": [0.1, 1.0]}, cv=2)
    search.fit(photos, labels)
    assert search.best_score_ == 1
    assert search.predict(photos).tolist() == labels.tolist()
    fitted = search.best_estimator_
    data = pickle.dumps(fitted)
    # The network is not in it.
    assert len(data) < 50_000
    again = pickle.loads(data)
    assert again.predict(photos).tolist() == labels.tolist()
    twin = clone(fitted[0])
    assert twin.get_params() == {"run": run, "batch_size": 4, "device": "auto"}
    assert not hasattr(twin, "_kept")


def test_the_checks_of_scikit_learn_that_apply(run: str) -> None:
    check_no_attributes_set_in_init("ImageEncoder", ImageEncoder(run))
    check_parameters_default_constructible("ImageEncoder", ImageEncoder())
    transformer = ImageEncoder(run)
    assert transformer.__sklearn_tags__().requires_fit is False
    assert "ImageEncoder" in repr(transformer)
    names = transformer.get_feature_names_out()
    assert (len(names), names[0]) == (256, "noneg0")


def test_set_output_makes_tables(run: str, photos: list[Path]) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    table = ImageEncoder(run).set_output(transform="pandas").fit_transform(photos)
    assert list(table.columns[:2]) == ["noneg0", "noneg1"]


def test_bad_input_is_one_sentence(run: str, photos: list[Path], tmp_path: Path) -> None:
    with pytest.raises(NonegError, match="give run="):
        ImageEncoder().fit(photos)
    with pytest.raises(NonegError, match="no encoder"):
        ImageEncoder(str(tmp_path)).fit(photos)
    with pytest.raises(NonegError, match=r"give \[path\]"):
        ImageEncoder(run).transform(str(photos[0]))
    with pytest.raises(NonegError, match="one column"):
        ImageEncoder(run).transform(np.array([["a", "b"]], dtype=object))
    photos[3].write_bytes(b"no picture")
    with pytest.raises(NonegError, match="cannot be read"):
        ImageEncoder(run).transform(photos)
