"""The commands that look into a collection, on real files: what they print, write and refuse."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noneg.cli import main
from noneg.collection.edits import edited
from untrained_encoders import untrained_encoder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("encoder")
    untrained_encoder().save(directory)
    return str(directory)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "photos"
    folder.mkdir()
    coarse = np.random.default_rng(0).integers(0, 256, (60, 5, 5, 3), dtype=np.uint8)
    pixels = np.stack([np.asarray(Image.fromarray(each).resize((32, 32))) for each in coarse])
    pixels = pixels.transpose(0, 3, 1, 2)
    copies = edited(pixels[:4], seed=1)
    for number, each in enumerate(pixels):
        Image.fromarray(each.transpose(1, 2, 0)).save(folder / f"{number:02}.png")
    for number, each in enumerate(copies):
        Image.fromarray(each.transpose(1, 2, 0)).save(folder / f"copy{number:02}.png")
    return folder


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_picture_finds_itself_and_its_copy(
    encoder: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(tmp_path / f"found{kind}") for kind in (".json", ".csv", ".html")]
    outs = [word for file in files for word in ("--out", file)]
    query = photos / "02.png"
    assert main(["search", encoder, str(photos), str(query), "--count", "3", *outs]) == 0
    printed = capsys.readouterr().out
    found = json.loads(Path(files[0]).read_text())
    assert [each["rank"] for each in found] == [1, 2, 3]
    assert found[0]["name"] == "02.png"
    assert found[0]["cosine"] == pytest.approx(1, abs=1e-3)
    assert "02.png" in printed
    assert [row["name"] for row in read_csv(Path(files[1]))] == [each["name"] for each in found]
    page = Path(files[2]).read_text()
    assert page.count('role="img"') == 4
    assert "http" not in page.replace("http-equiv", "")


def test_copies_are_duplicates(
    encoder: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "groups.csv"
    assert main(["duplicates", encoder, str(photos), "--out", str(out)]) == 0
    assert "of edited copies do" in capsys.readouterr().out
    groups: dict[str, set[str]] = {}
    for row in read_csv(out):
        groups.setdefault(row["group"], set()).add(row["name"])
    pairs = [{f"{number:02}.png", f"copy{number:02}.png"} for number in range(4)]
    assert sum(any(pair <= group for group in groups.values()) for pair in pairs) >= 3
    # A collection against itself: every image is a leak.
    out = tmp_path / "leaks.json"
    arguments = ["duplicates", encoder, str(photos), str(photos), "--threshold", "0.999"]
    assert main([*arguments, "--out", str(out)]) == 0
    assert len(json.loads(out.read_text())) == 64
    assert "64 of the 64 images" in capsys.readouterr().out


def test_outliers_clusters_and_choices_name_every_image_once(
    encoder: str, photos: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (32, 32), (255, 0, 255)).save(photos / "zz.png")
    outliers, clusters, chosen = (tmp_path / f"{name}.csv" for name in ("o", "c", "s"))
    assert main(["outliers", encoder, str(photos), "--out", str(outliers)]) == 0
    assert "zz.png" in [row["name"] for row in read_csv(outliers)[:3]]
    assert main(["clusters", encoder, str(photos), "--count", "4", "--out", str(clusters)]) == 0
    assert {row["cluster"] for row in read_csv(clusters)} == {"0", "1", "2", "3"}
    for rows in (read_csv(outliers), read_csv(clusters)):
        assert len({row["name"] for row in rows}) == len(rows) == 65
    labels = tmp_path / "labels.csv"
    labels.write_text("name,label\n00.png,cat\n01.png,dog\n")
    arguments = ["select", encoder, str(photos), "--count", "5", "--out", str(chosen)]
    for strategy in ("typical", "herding", "margin"):
        assert main([*arguments, "--strategy", strategy, "--labeled", str(labels)]) == 0
        names = {row["name"] for row in read_csv(chosen)}
        assert len(names) == 5
        assert not names & {"00.png", "01.png"}
    page = tmp_path / "page.html"
    for command in (["outliers"], ["clusters", "--count", "3"], ["select", "--count", "3"]):
        assert main([command[0], encoder, str(photos), *command[1:], "--out", str(page)]) == 0
        assert 'role="img"' in page.read_text()


def test_wrong_labels_are_suspected(
    encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    for number in range(40):
        name = "red" if number % 2 else "blue"
        # Image 7 is red, and in the other folder.
        folder = tmp_path / "photos" / ("blue" if number == 7 else name)
        folder.mkdir(parents=True, exist_ok=True)
        color = (220, 40, 40) if name == "red" else (40, 40, 220)
        pixels = np.clip(color + random.normal(0, 25, (32, 32, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    out = tmp_path / "suspects.csv"
    arguments = ["mislabeled", encoder, str(tmp_path / "photos"), "--out", str(out)]
    assert main([*arguments, "--out", str(tmp_path / "page.html")]) == 0
    rows = read_csv(out)
    assert (rows[0]["name"], rows[0]["label"]) == ("blue/07.png", "blue")
    assert rows[0]["neighbors_say"] == "red"
    assert "is blue, neighbors say red" in capsys.readouterr().out
    assert 'role="img"' in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "{encoder}", "{photos}", "{photos}/none.png"], "cannot be opened"),
        (["search", "{encoder}", "{photos}", "{photos}/../broken.png"], "cannot be read"),
        (["search", "{encoder}", "{photos}", "{photos}/00.png", "--count", "0"], "k of 1"),
        (["search", "{encoder}", "{photos}", "{photos}/00.png", "--out", "x.txt"], ".html"),
        (["search", "{photos}", "{photos}", "{photos}/00.png"], "no encoder"),
        (["outliers", "{encoder}", "{photos}/../empty"], "no image"),
        (["duplicates", "{encoder}", "{photos}", "--threshold", "7"], "no cosine"),
        (["clusters", "{encoder}", "{photos}", "--count", "900"], "900 clusters"),
        (["select", "{encoder}", "{photos}", "--count", "900"], "900 of"),
        (["select", "{encoder}", "{photos}", "--count", "2", "--labeled", "no.csv"], "no.csv"),
        (
            ["select", "{encoder}", "{photos}", "--count", "2", "--strategy", "margin"],
            "two classes",
        ),
        (["mislabeled", "{encoder}", "{photos}"], "no labels"),
        (["outliers", "{encoder}", "{photos}", "--out", "/nowhere/x.csv"], "/nowhere/x.csv"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str],
    message: str,
    encoder: str,
    photos: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (photos.parent / "empty").mkdir(exist_ok=True)
    (photos.parent / "broken.png").write_bytes(b"no picture")
    given = [each.format(encoder=encoder, photos=photos) for each in arguments]
    assert main(given) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("noneg:")]
    assert len(errors) == 1
    assert message in errors[0]


def test_an_encoder_for_other_images_is_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    untrained_encoder(channels=5).save(tmp_path / "five")
    np.save(tmp_path / "five.npy", np.zeros((3, 32, 32, 5), np.uint8))
    query = str(photos / "00.png")
    assert main(["search", str(tmp_path / "five"), str(tmp_path / "five.npy"), query]) == 2
    assert "5 channels" in capsys.readouterr().err
    assert main(["outliers", str(tmp_path / "five"), str(photos)]) == 2
    assert "channels" in capsys.readouterr().err
