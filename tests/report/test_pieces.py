"""Numbers, files, maps and pictures, piece by piece."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noneg.errors import NonegError
from noneg.records.contents import read_run
from noneg.report.canvases import MOST_POINTS, thinned
from noneg.report.html import data_script
from noneg.report.numbers import duration, number
from noneg.report.pictures import make_atlas
from noneg.report.sample import Sample, directions
from noneg.report.sections.map import cluster, groupings, project
from noneg.report.sections.spectrum import eigenvalues

pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (12.0, "12"),
        (1234567.0, "1.23e6"),
        (123456.0, "123,456"),
        (999.7, "1,000"),
        (99.96, "100"),
        (9.996, "10.0"),
        (3.14159, "3.14"),
        (-0.04567, "\u22120.0457"),
        (0.0005, "5e-4"),
        (math.nan, "not a number"),
        (-math.inf, "\u2212infinite"),
    ],
)
def test_numbers_have_three_digits(value: float, shown: str) -> None:
    assert number(value) == shown


def test_durations_have_two_units() -> None:
    assert [duration(seconds) for seconds in (9.6, 61.0, 7260.0)] == [
        "10 s",
        "1 min 1 s",
        "2 h 1 min",
    ]


def test_metrics_keep_gaps_and_lose_a_torn_row(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(
        "step,loss,a,b,learning_rate,images_per_second,std_h,lidar_h,odd_z\n"
        "1,5,2,3,0.1,100,0.5,,nan\n2,4,1,3,0.1,100,0.4,7,\n3,3.5,1"
    )
    run = read_run(tmp_path)
    assert run.metrics["step"].tolist() == [1, 2]
    assert run.terms == ["a", "b"]
    assert run.meters == {"std": {"h": "std_h"}, "lidar": {"h": "lidar_h"}}
    assert np.isnan(run.metrics["lidar_h"][0])
    assert run.last("lidar_h") == 7
    assert run.last("odd_z") is None


def test_spectra_may_be_narrower_than_the_header_and_torn(tmp_path: Path) -> None:
    (tmp_path / "spectra.csv").write_text(
        "step,epoch,embedding,lambda_1,lambda_2,lambda_3\n1,0,h,3,2,1\n1,0,z,4,3,\n9,2,h,5"
        "\n10,2,z\n11"
    )
    found = [
        (each.step, each.embedding, each.eigenvalues.tolist())
        for each in read_run(tmp_path).spectra
    ]
    assert found == [(1, "h", [3, 2, 1]), (1, "z", [4, 3]), (9, "h", [5])]


def test_damaged_files_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    (tmp_path / "verdict.json").write_text("{broken")
    (tmp_path / "run.json").write_text("[1]")
    (tmp_path / "scores.json").write_text("[1]")
    (tmp_path / "meters.json").write_bytes(b"\xff")
    (tmp_path / "metrics.csv").write_text("step,loss,learning_rate\n1,many,0.1\n")
    (tmp_path / "config.yaml").write_text("epochs: 3\n")
    run = read_run(tmp_path)
    assert run.settings == {"epochs": 3}
    assert (run.verdict, run.provenance, run.metrics, run.scores) == ({}, {}, {}, {})
    assert (run.final_meters.trained, run.final_meters.untrained) == ({}, {})
    named = "; ".join(run.missing)
    for name in ("verdict.json", "run.json", "metrics.csv", "scores.json", "meters.json"):
        assert f"{name} (" in named
    assert named.count("it cannot be read") == 5
    assert "spectra.csv (spectra over time)" in named
    assert "encoder (the encoder)" in named
    assert "config.yaml" not in named


def test_a_folder_that_is_no_run_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(NonegError, match="is not a run"):
        read_run(tmp_path)


def test_long_lines_are_thinned_and_end_where_they_end() -> None:
    x = np.arange(50_001.0)
    y = np.where(x % 10 == 0, x, np.nan)
    shown_x, shown_y = thinned(x, y)
    assert len(shown_x) == MOST_POINTS
    assert np.array_equal(shown_x, shown_y)
    assert (shown_x[0], shown_x[-1]) == (0, 50_000)


def test_no_name_ends_a_script() -> None:
    hostile = json.dumps({"name": "</script><script>alert(1)</script><!--"})
    html = data_script("data", hostile)
    assert html.count("<") == 2
    inside = html.removeprefix('<script type="application/json" id="data">')
    assert json.loads(inside.removesuffix("</script>")) == json.loads(hostile)


@pytest.mark.parametrize(("channels", "side"), [(3, 32), (1, 20), (5, 80)])
def test_an_atlas_holds_every_picture_at_its_place(channels: int, side: int) -> None:
    # Flat images survive lossy coding.
    values = np.arange(0, 250, 25, dtype=np.uint8)
    pixels = np.broadcast_to(values[:, None, None, None], (10, channels, side, side)).copy()
    pixels[:, 1:] = values[:, None, None, None] if channels == 3 else 0
    atlas = make_atlas("image", pixels)
    with Image.open(io.BytesIO(atlas.data)) as opened:
        sheet = np.asarray(opened.convert("L")).astype(int)
    assert atlas.columns == 4
    assert atlas.tile == min(side, 64)
    for index, value in enumerate(values):
        y, x = divmod(index, atlas.columns)
        middle = sheet[(2 * y + 1) * atlas.tile // 2, (2 * x + 1) * atlas.tile // 2]
        assert abs(middle - int(value)) <= 6
        assert f"--x:{x};--y:{y}" in atlas.picture(index, "name")


def test_an_atlas_that_would_be_too_large_gets_coarser() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 3, 64, 64), dtype=np.uint8)
    assert len(make_atlas("image", pixels).data) > 200_000
    small = make_atlas("image", pixels, most_bytes=150_000)
    assert len(small.data) <= 150_000
    assert small.tile < 64


def test_pictures_escape_their_names() -> None:
    atlas = make_atlas("image", np.zeros((1, 3, 8, 8), dtype=np.uint8))
    html = atlas.picture(0, "\"><img src=x onerror='alert(1)'>")
    assert html.count("<") == 2
    assert "'alert" not in html


def make_sample(names: tuple[str, ...], labels: np.ndarray | None, width: int = 6) -> Sample:
    n = len(names)
    embeddings = np.random.default_rng(0).normal(size=(n, width)).astype(np.float32)
    pixels = np.zeros((n, 3, 8, 8), dtype=np.uint8)
    return Sample(
        pixels, names, labels, ("cat", "dog"), None, n, embeddings, directions(embeddings)
    )


def test_folders_that_are_the_labels_are_not_offered_twice() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    clusters = np.array([0, 1, 1, 1, 1])
    same = make_sample(("a/1", "a/2", "a/3", "b/1", "b/2"), labels)
    assert [group.title for group in groupings(same, clusters)] == ["label", "cluster"]
    differing = make_sample(("a/1", "b/2", "a/3", "b/1", "b/2"), labels)
    found = groupings(differing, clusters)
    assert [group.title for group in found] == ["label", "folder", "cluster"]
    assert found[0].names == ("cat", "dog")
    assert found[1].names == ("b", "a")
    assert found[1].members.tolist() == [1, 0, 1, 0, 0]
    assert found[2].names == ("cluster 1", "cluster 2")
    assert found[2].members.tolist() == [1, 0, 0, 0, 0]


def test_maps_repeat_for_a_seed_and_keep_clusters_together() -> None:
    generator = np.random.default_rng(0)
    centers = 4 * generator.normal(size=(3, 20))
    embeddings = np.repeat(centers, 40, axis=0) + generator.normal(size=(120, 20))
    unit = directions(embeddings.astype(np.float32))
    first, again = project(unit, seed=3), project(unit, seed=3)
    assert np.array_equal(first.tsne, again.tsne)
    of = np.repeat(np.arange(3), 40)
    for plane in (first.tsne, first.pca):
        middles = np.stack([plane[of == each].mean(axis=0) for each in range(3)])
        nearest = np.linalg.norm(plane[:, None] - middles, axis=2).argmin(axis=1)
        assert np.mean(nearest == of) > 0.95
    members = cluster(first.components, seed=3)
    assert all(len(np.unique(of[members == each])) == 1 for each in np.unique(members))


def test_equal_embeddings_and_few_images_still_have_a_map() -> None:
    for unit in (np.zeros((40, 8), dtype=np.float32), directions(np.eye(3, 8, dtype=np.float32))):
        found = project(unit, seed=0)
        assert found.tsne.shape == (len(unit), 2)
        assert np.isfinite(found.tsne).all()
        assert len(cluster(found.components, seed=0)) == len(unit)


def test_eigenvalues_are_those_of_the_covariance() -> None:
    embeddings = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    expected = np.sort(np.linalg.eigvalsh(np.cov(embeddings.astype(np.float64).T)))[::-1]
    np.testing.assert_allclose(eigenvalues(embeddings), expected, rtol=1e-5)
