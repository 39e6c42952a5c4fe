"""Whole pages: what they show, how they name what is missing, and how large they are."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from noneg.cli import main
from noneg.errors import NonegError
from noneg.images import Images
from noneg.images.shapes import CLASSES, draw_shapes
from noneg.report import write_report

pytestmark = pytest.mark.usefixtures("elsewhere")

MakeRun = Callable[..., Path]
WriteImages = Callable[[dict[str, int]], Path]

HOSTILE = "a</script><img src=x onerror=alert(1)>.png"
HOSTILE_FOLDER = "<b onclick='alert(1)'>&amp;\""


@pytest.fixture
def folder(write_images: WriteImages) -> Path:
    names = {f"a/{number:02}.png": number for number in range(20)}
    names |= {f"b/{number:02}.png": 20 + number for number in range(20)}
    # The second is a copy of the first.
    names |= {f"{HOSTILE_FOLDER}/{HOSTILE}": 77, f"{HOSTILE_FOLDER}/copy.png": 77}
    return write_images(names)


def written(runs: list[Path], **settings: object) -> str:
    return write_report(runs, **settings).read_text(encoding="utf-8")  # type: ignore[arg-type]


def map_data(html: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="map-data">(.*?)</script>', html, re.S)
    assert found is not None
    data: dict[str, object] = json.loads(found[1])
    return data


def coordinates(html: str) -> list[str]:
    """The map's columns, as Bokeh encodes them."""
    found = re.search(r'id="drawing">(.*?)</script>', html, re.S)
    assert found is not None
    return re.findall(r'"(?:tsne|pca)_[xy]",\{"type":"ndarray".*?"data":"(.*?)"', found[1])


def test_a_page_has_every_part_and_asks_for_nothing_outside(
    make_run: MakeRun, folder: Path
) -> None:
    run = make_run("run", str(folder))
    html = written([run])
    for part in ("training", "meters", "spectrum", "map", "neighbors", "duplicates", "views"):
        assert f'<section id="{part}"' in html
    # Only the built-in images have factors.
    assert '<section id="factors"' not in html
    assert "Nothing points to collapse." in html
    assert html.count("equal pixels") == 1
    assert "All 42 images" in html
    outside_scripts = re.sub(r"<script.*?</script>", "", html, flags=re.S)
    assert len(outside_scripts) < len(html) / 2
    assert not re.search(r'(?:src|href)="(?!#|data:)', outside_scripts)
    assert "url(http" not in html


def test_names_are_text_wherever_they_stand(make_run: MakeRun, folder: Path) -> None:
    html = written([make_run("<i>run</i>", str(folder))])
    for hostile in ("<img src=x", "<b onclick", "<i>run"):
        assert hostile not in html
    names = map_data(html)["names"]
    assert isinstance(names, list)
    assert f"{HOSTILE_FOLDER}/{HOSTILE}" in names
    assert "&lt;img src=x onerror=alert(1)&gt;" in html


def test_the_same_seed_gives_the_same_map_and_sample(make_run: MakeRun, folder: Path) -> None:
    run = make_run("run", str(folder))
    pages = [written([run], most=25, seed=seed) for seed in (1, 1, 2)]
    maps = [map_data(page) for page in pages]
    places = [coordinates(page) for page in pages]
    assert len(places[0]) == 4
    assert maps[0] == maps[1] != maps[2]
    assert places[0] == places[1] != places[2]
    assert "a random sample of 25 of the 42 images" in pages[0]


def test_images_in_memory_are_used_and_not_looked_for(make_run: MakeRun, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", pixels)
    run = make_run("run", str(tmp_path / "images.npy"))
    (tmp_path / "images.npy").unlink()
    gone = written([run])
    assert '<section id="map"' not in gone
    assert "Not shown: the images" in gone
    assert '<section id="training"' in gone
    images = Images(
        pixels=np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)),
        names=tuple(f"number {each}" for each in range(60)),
        labels=None,
        classes=None,
        skipped=(),
        description="memory",
        factors=None,
    )
    html = written([run], images=images)
    assert map_data(html)["names"] == list(images.names)
    assert '<section id="views"' in html


def test_a_run_without_its_newer_files_says_what_is_missing(
    make_run: MakeRun, folder: Path
) -> None:
    run = make_run("run", str(folder))
    for name in ("spectra.csv", "verdict.json", "metrics.csv"):
        (run / name).unlink()
    html = written([run])
    assert "No verdict" in html
    assert "metrics.csv (loss, terms and meters over time)" in html
    assert "measured now" in html
    assert '<section id="training"' not in html
    assert '<section id="map"' in html
    shutil.rmtree(run / "encoder")
    (run / "config.yaml").unlink()
    (run / "metrics.csv").write_text("step,loss,learning_rate\n1,2,3\n")
    html = written([run])
    assert '<section id="training"' in html
    assert "the encoder" in html


def command_blocks(html: str) -> dict[str, str]:
    """The commands on the page, by the words above them."""
    return dict(re.findall(r"<p>([^<]*)</p><pre[^>]*><code>(.*?)</code></pre>", html))


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("noneg train my photos --method byol", "noneg train my photos --method byol"),
        ("noneg.train(...) from Python", "noneg.train(...) from Python"),
        ("noneg train --config 'other run/config.yaml'", "noneg train --config &#x27;other run"),
        ("noneg train <b> 'torn", "noneg train &lt;b&gt; &#x27;torn"),
        # What version 0.1.0 made up, with a relative and an absolute path.
        ("noneg train --config runs/run/config.yaml", None),
        ("noneg train --config '/elsewhere/a b/run/config.yaml'", None),
        ("", None),
        (None, None),
        ([3], None),
    ],
)
def test_started_as_is_what_was_typed_and_the_run_can_be_repeated(
    make_run: MakeRun, tmp_path: Path, command: object, shown: str | None
) -> None:
    np.save(tmp_path / "two.npy", np.zeros((2, 32, 32, 3), dtype=np.uint8))
    run = make_run("run", str(tmp_path / "two.npy"))
    (tmp_path / "two.npy").unlink()
    (run / "run.json").write_text(json.dumps({"command": command}))
    blocks = command_blocks(written([run]))
    assert blocks["To repeat it"] == f"noneg train --config {run}/config.yaml"
    if shown is None:
        assert "Started as" not in blocks
    else:
        assert blocks["Started as"].startswith(shown)


def meters_table(html: str) -> list[list[str]]:
    """The rows of the table of meters, the best of two in stars."""
    found = re.search(r'<table class="compare final">(.*?)</table>', html)
    if found is None:
        return []
    rows = re.findall(r"<tr>(.*?)</tr>", found[1])
    marked = [re.sub(r'<td class="number best">(.*?)</td>', r"<td>*\1*</td>", row) for row in rows]
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in marked]
    return [[re.sub("<.*?>", "", cell) for cell in row] for row in cells]


@pytest.mark.parametrize("name", ["untrained", "random"])
def test_the_meters_at_the_end_stand_beside_those_of_the_untrained_network(
    make_run: MakeRun, tmp_path: Path, name: str
) -> None:
    np.save(tmp_path / "two.npy", np.zeros((2, 32, 32, 3), dtype=np.uint8))
    run = make_run("run", str(tmp_path / "two.npy"))
    (tmp_path / "two.npy").unlink()
    html = written([run])
    assert meters_table(html) == []
    assert '<section id="meters"' in html
    assert "meters.json (the meters at the end)" in html
    trained = {
        "h": {"std": 0.75, "alignment": 0.5, "alpha_req": 1.25, "lidar": None, "odd": 3.0},
        "z": {"std": 0.25, "alignment": 0.5, "alpha_req": 1.0, "lidar": 7.0},
    }
    before = {
        "h": {"std": 0.5, "alignment": 0.25, "alpha_req": 0.75, "lidar": 2.0},
        "z": {"std": 0.375, "alignment": 0.5, "alpha_req": 2.0, "lidar": 3.0},
    }
    fields = {"images": 1000, "views": 4, "trained": trained, name: before}
    (run / "meters.json").write_text(json.dumps(fields))
    html = written([run])
    assert meters_table(html) == [
        ["meter", "h trained", "h untrained", "z trained", "z untrained", ""],
        ["Normalized std", "*0.750*", "0.500", "0.250", "*0.375*", "higher is better"],
        ["alpha-ReQ", "1.25", "0.750", "1", "2", ""],
        ["Alignment", "0.500", "*0.250*", "0.500", "0.500", "lower is better"],
        ["LiDAR", "\N{EN DASH}", "2", "*7*", "3", "higher is better"],
    ]
    assert "Measured on random views of 1,000 images." in html
    assert "<b>LiDAR.</b> With few views" in html
    assert "meters.json (" not in html
    # Without metrics.csv there are no curves, but the table remains.
    (run / "metrics.csv").unlink()
    assert len(meters_table(written([run]))) == 5


def test_the_start_of_a_run_stands_beside_the_trained_encoder(
    make_run: MakeRun, tmp_path: Path
) -> None:
    """Its meters of h, its scores, and what training did to it."""
    np.save(tmp_path / "two.npy", np.zeros((2, 32, 32, 3), dtype=np.uint8))
    run = make_run("run", str(tmp_path / "two.npy"))
    (tmp_path / "two.npy").unlink()
    meters = {
        "trained": {"h": {"std": 0.5, "alignment": 0.5}, "z": {"std": 0.25, "alignment": 0.5}},
        "start": {"h": {"std": 0.75, "alignment": 0.25}},
        "untrained": {"h": {"std": 0.25, "alignment": 0.75}, "z": {"std": 0.125, "alignment": 1.0}},
    }
    (run / "meters.json").write_text(json.dumps({"images": 100, "views": 4, **meters}))
    scores = {"trained": {"knn": 0.5}, "start": {"knn": 0.75}, "untrained": {"knn": 0.25}}
    (run / "scores.json").write_text(json.dumps(scores))
    verdict = json.loads((run / "verdict.json").read_text())
    html = written([run])
    assert "weights that it began with" not in html
    against = {"outcome": "harmed", "difference": -0.25, "error": 0.0625, "certainty": 0.999}
    (run / "verdict.json").write_text(json.dumps(verdict | {"against_start": against}))
    html = written([run])
    assert meters_table(html) == [
        ["meter", "h trained", "h start", "h untrained", "z trained", "z untrained", ""],
        ["Normalized std", "0.500", "*0.750*", "0.250", "*0.250*", "0.125", "higher is better"],
        ["Alignment", "0.500", "*0.250*", "0.750", "*0.500*", "1", "lower is better"],
    ]
    assert '<div class="bar start"><span>the start</span>' in html
    assert "25.0 points below the start and 25.0 points above the untrained encoder." in html
    assert (
        "Against the weights that it began with: <b>harmed</b> (-25.0 points on average of both "
        "probes, standard error 6.2)" in html
    )
    for damaged in ({"outcome": "<b>"}, ["harmed"], {**against, "difference": "much"}):
        (run / "verdict.json").write_text(json.dumps(verdict | {"against_start": damaged}))
        assert "weights that it began with" not in written([run])


@pytest.mark.parametrize("name", ["untrained", "random"])
def test_scores_stand_beside_those_of_the_untrained_encoder(
    make_run: MakeRun, tmp_path: Path, name: str
) -> None:
    np.save(tmp_path / "two.npy", np.zeros((2, 32, 32, 3), dtype=np.uint8))
    run = make_run("run", str(tmp_path / "two.npy"))
    (tmp_path / "two.npy").unlink()
    scores: dict[str, dict[str, Any]] = {
        "trained": {"knn": 0.5},
        name: {"knn": 0.25},
        "pixels": {"knn": 0.625},
    }
    (run / "scores.json").write_text(json.dumps(scores))
    html = written([run])
    assert '<div class="bar untrained"><span>untrained</span>' in html
    assert "25.0 points above the untrained encoder and 12.5 points below raw pixels." in html
    assert "bar patches" not in html
    scores["patches"] = {"knn": 0.375, "knn_raw": 0.3, "unreduced": {"knn": 0.4}}
    (run / "scores.json").write_text(json.dumps(scores))
    html = written([run])
    assert '<div class="bar patches"><span>patches</span>' in html
    assert "12.5 points below raw pixels and 12.5 points above patches with k-means." in html


def test_the_curve_of_labels_is_shown_with_its_numbers(make_run: MakeRun, folder: Path) -> None:
    run = make_run("run", str(folder))
    assert '<section id="labels"' not in written([run])
    points: list[dict[str, Any]] = [
        {"features": "trained", "per_class": None, "labels": 90, "accuracies": [0.75]},
        {"features": "trained", "per_class": 1, "labels": 3, "accuracies": [0.25, 0.375]},
        {"features": "<b>own</b>", "per_class": 1, "labels": 3, "accuracies": [0.125]},
        {"features": "damaged", "labels": 3, "accuracies": ["much"]},
    ]
    (run / "curve.json").write_text(json.dumps({"points": points}))
    html = written([run])
    assert '<section id="labels"' in html
    # Mean and standard deviation, fewest labels first.
    row = "<tr><td>3</td><td>31.2% \N{PLUS-MINUS SIGN} 8.8</td><td>12.5%</td></tr>"
    assert f"{row}<tr><td>90</td><td>75.0%</td><td></td></tr>" in html
    assert "&lt;b&gt;own&lt;/b&gt;" in html
    assert "damaged" not in html.split('<section id="labels"')[1].split("</section>")[0]
    (run / "curve.json").write_text("[")
    html = written([run])
    assert '<section id="labels"' not in html
    assert "curve.json (accuracies; it cannot be read)" in html


def test_views_come_from_the_settings_of_the_run(make_run: MakeRun, folder: Path) -> None:
    run = make_run(
        "run", str(folder), views=[{"hue": 0.0}, {"blur": 0.5}], num_views=3, view_size=32
    )
    html = written([run])
    assert "the views <b>your own</b>, of 32 px" in html
    assert "epoch 2, view 3" in html
    assert "epoch 2, view 4" not in html
    config = run / "config.yaml"
    settings = config.read_text()
    assert settings.count("grayscale:") == 2
    # The older name of a setting.
    config.write_text(settings.replace("grayscale:", "grey:"))
    older = written([run])
    pictures = re.compile(r"\.view\{.*?\}")
    assert pictures.findall(older) == pictures.findall(html) != []
    assert "&#x27;grey&#x27;" in older
    assert settings.count("\nview_size: ") == 1
    config.write_text(re.sub(r"\nview_size: .*", "\nview_size: 16", settings))
    small = written([run])
    assert "the views <b>your own</b>, of 16 px" in small
    assert pictures.findall(small) != pictures.findall(html)
    config.write_text(settings.replace("grayscale:", "graysale:"))
    broken = written([run])
    assert "Not shown: the views (views: no setting &#x27;graysale&#x27;; there are:" in broken
    assert '<section id="views"' not in broken
    assert '<section id="map"' in broken
    config.write_text(settings.replace("\nsize: 32\n", "\nsize: large\n"))
    assert "the views (config.yaml needs a whole number for size, not" in written([run])


def test_the_report_does_not_need_the_trainer() -> None:
    code = "import sys, noneg.report; print([m for m in sys.modules if m.startswith('noneg.')])"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert "'noneg.report.sections.views'" in loaded
    for above in ("noneg.training", "noneg.commands", "noneg.studies", "noneg.experiments"):
        assert f"'{above}" not in loaded


def test_the_progress_bar_is_shown_only_on_request(
    make_run: MakeRun, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run("run", str(folder))
    write_report([run])
    assert capsys.readouterr().err == ""
    write_report([run], progress=True)
    assert "report" in capsys.readouterr().err


def test_embeddings_that_are_not_finite_are_told(make_run: MakeRun, folder: Path) -> None:
    import torch

    from noneg.encoder import load

    run = make_run("run", str(folder))
    encoder = load(run)
    with torch.no_grad():
        next(encoder.module.parameters()).fill_(torch.nan)
    encoder.save(run / "encoder")
    html = written([run])
    assert "the training diverged" in html
    assert '<section id="map"' not in html


def test_shapes_get_their_factors_beside_the_untrained_encoder(
    make_run: MakeRun, tmp_path: Path
) -> None:
    shapes = draw_shapes(300, seed=0)
    np.save(tmp_path / "shapes.npy", shapes.pixels.transpose(0, 2, 3, 1))
    images = Images(
        pixels=shapes.pixels,
        names=tuple(map(str, range(300))),
        labels=shapes.labels,
        classes=CLASSES,
        skipped=(),
        description="shapes (built in)",
        factors=shapes.factors,
    )
    html = written([make_run("run", str(tmp_path / "shapes.npy"))], images=images, most=250)
    assert '<section id="factors"' in html
    assert "background hue" in html
    assert "rotation (mean of 4 copies)" in html
    assert "of the 10 nearest neighbors have the image's own label" in html
    assert "a random sample of 250 of the 300 images" in html


def test_five_thousand_images_stay_below_8_mb(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Noise compresses worst. t-SNE takes a minute and does not change the size; small views keep
    # the embedding fast.
    from sklearn import manifold

    monkeypatch.setattr(manifold, "TSNE", _StartOnly)
    generator = np.random.default_rng(0)
    np.save(tmp_path / "noise.npy", generator.integers(0, 256, (5_200, 48, 48, 3), dtype=np.uint8))
    run = make_run("run", str(tmp_path / "noise.npy"), size=8, stored=48)
    page = write_report([run], tmp_path / "page.html")
    assert page.stat().st_size < 8_000_000
    assert "a random sample of 5,000 of the 5,200 images" in page.read_text(encoding="utf-8")


class _StartOnly:
    def __init__(self, *, init: np.ndarray, **_: object) -> None:
        self.init = init

    def fit_transform(self, _: np.ndarray) -> np.ndarray:
        return self.init


def test_runs_are_compared_and_only_differing_settings_are_shown(
    make_run: MakeRun, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = make_run("one", str(folder), epochs=3)
    other = make_run("other", str(folder), epochs=7, method="byol")
    (other / "scores.json").write_text(
        json.dumps({"trained": {"knn": 0.5, "linear": 0.625, "dimensions": 8}})
    )
    (other / "verdict.json").unlink()
    assert main(["report", str(one), str(other)]) == 0
    assert "comparison.html" in capsys.readouterr().out
    html = Path("comparison.html").read_text(encoding="utf-8")
    assert "50.0%" in html
    assert "62.5%" in html
    assert '<th scope="row">epochs</th><td>3</td><td>7</td>' in html
    assert '<th scope="row">seed</th>' not in html
    assert "Loss of byol" in html
    assert "Loss of vicreg" in html
    assert html.count("No verdict") == 1
    # A run that was scored since then.
    assert "do not compare these" not in html
    scores = {"trained": {"knn": 0.25, "knn_raw": 0.125}}
    (one / "scores.json").write_text(json.dumps(scores))
    assert main(["report", str(one), str(other)]) == 0
    assert "do not compare these" in Path("comparison.html").read_text(encoding="utf-8")


def test_the_command_writes_into_the_run_and_errors_are_one_sentence(
    make_run: MakeRun, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run("run", str(folder))
    assert main(["report", str(run), "--images", "12", "--seed", "3"]) == 0
    assert (run / "report.html").exists()
    capsys.readouterr()
    for arguments, named in [
        (["report", "nothing"], "is not a run"),
        (["report", str(run), "--images", "1"], "at least 3"),
        (["report", str(run), "--out", "no/where.html"], "cannot be written"),
        (["report"], "RUN"),
    ]:
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert named in error.splitlines()[-1]
    with pytest.raises(NonegError, match="needs a run"):
        write_report([])


def test_unreadable_images_are_left_out(make_run: MakeRun, folder: Path) -> None:
    run = make_run("run", str(folder))
    (folder / "a" / "broken.png").write_text("not an image")
    names = map_data(written([run]))["names"]
    assert isinstance(names, list)
    assert len(names) == 42
    assert "a/broken.png" not in names
