"""Names and labels of strangers do nothing in a terminal, a spreadsheet or a browser."""

import csv
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from real_runs import command

from noneg.cli import main
from noneg.errors import printable
from noneg.files import from_cell, to_cell
from untrained_encoders import untrained_encoder

CLASSES = ("=cmd|' &C calc'!A0", "\x1b[31mred", "<img src=x onerror=alert(1)>")
NAMES = (
    "=1+1.png",
    "+x.png",
    "-2+3.png",
    "@SUM(1).png",
    "'=2.png",
    "\t=3.png",
    "title\x1b]0;owned\x07.png",
    "clear\x1b[2J\x9b2J.png",
    "\u202egnp.exe.png",
    "two\nlines\r.png",
    "<script>alert(1)<.png",
    '"><svg onload=alert(1)>.png',
    os.fsdecode(b"bytes\xff.png"),
)
BROKEN = "=broken\x1b[31m.png"

# Newlines end the program's own lines.
STEERING = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\N{FULLWIDTH EQUALS SIGN}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("hostile") / "im\x1b[31mages"
    generator = np.random.default_rng(0)
    for label in CLASSES:
        (place / label).mkdir(parents=True)
        for name in NAMES:
            pixels = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / label / name, format="PNG")
    (place / CLASSES[0] / BROKEN).write_text("not an image")
    return place


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("encoder")
    untrained_encoder(size=16).save(place)
    return place


class Markup(HTMLParser):
    """The tags of a page, and their attributes that begin with "on"."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: set[tuple[str, str]] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {(tag, name) for name, _ in attrs if name.startswith("on")}
        if ("src", "x") in attrs:
            self.found.add((tag, "src"))


def assert_harmless_page(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    assert not Markup(page).found
    # No text can end a script or begin another.
    assert "<script>alert" not in page


def assert_harmless_table(path: Path) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert any(cell.startswith("'=") for cell in cells)
    for cell in cells:
        assert not STEERING.search(cell)
        if cell.startswith(FORMULA):
            float(cell)


def assert_harmless_text(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    for text in captured:
        assert not STEERING.search(text), repr(text)
    return captured.out + captured.err


def test_what_commands_print_and_write(
    folder: Path, encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = str(encoder), str(folder)
    assert main(["embed", run, data, "--out", str(tmp_path / "a.parquet")]) == 0
    said = assert_harmless_text(capsys)
    assert f"skipped {printable(CLASSES[0])}/=broken\\x1b[31m.png" in said
    paths = pyarrow.parquet.read_table(tmp_path / "a.parquet")["path"].to_pylist()
    assert len(paths) == len(CLASSES) * len(NAMES)
    assert not any(STEERING.search(path) for path in paths)

    found = {
        "duplicates": ["--threshold", "-1"],
        "outliers": [],
        "mislabeled": [],
        "select": ["--count", "39"],
    }
    for name, flags in found.items():
        files = [tmp_path / f"{name}.{kind}" for kind in ("csv", "html", "json")]
        outs = [part for file in files for part in ("--out", str(file))]
        assert main([name, run, data, *flags, *outs]) == 0, capsys.readouterr().err
        assert_harmless_text(capsys)
        assert_harmless_table(files[0])
        assert_harmless_page(files[1])
        json.loads(files[2].read_text())

    classifier, predicted = tmp_path / "classifier", tmp_path / "predicted.csv"
    assert main(["finetune", run, data, "--epochs", "0", "--out", str(classifier)]) == 0
    assert_harmless_text(capsys)
    assert main(["predict", str(classifier), data, "--out", str(predicted)]) == 0
    assert_harmless_text(capsys)
    assert_harmless_table(predicted)

    # A table of names and labels that noneg wrote is read back.
    labels = tmp_path / "labels.csv"
    with labels.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [("name", "label"), *((to_cell(printable(path)), "-1") for path in paths[:20])]
        )
    assert main(["select", run, data, "--count", "3", "--labeled", str(labels)]) == 0
    assert_harmless_text(capsys)


def test_what_a_run_prints_and_writes(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run\x1b[2J $(touch owned)"
    assert main(command(folder, out, steps=4, report=True)) == 0
    assert_harmless_text(capsys)
    assert_harmless_page(out / "report.html")
    assert_harmless_table(out / "skipped.csv")
    assert main(command(folder, out)) == 2
    said = assert_harmless_text(capsys)
    quoted = printable(str(out))
    assert f"noneg train --resume '{quoted}'" in said


@pytest.mark.parametrize("name", [*NAMES, *CLASSES])
def test_a_printable_name_is_one_line_that_shows_the_same(name: str) -> None:
    shown = printable(name)
    assert not STEERING.search(shown)
    assert "\n" not in shown
    shown.encode()
    assert printable(shown) == shown


def test_harmless_names_stay_as_they_are() -> None:
    """The control."""
    names = ("with space.png", "снег ❄.png", "a,b.png", "שלום.png", "👩\u200d🔬.png", "c:\\x.png")
    for name in names:
        assert printable(name) == name
        assert to_cell(name) == name


@settings(deadline=None)
@given(st.text() | st.text(alphabet="'=+-@\t\r1.e"))
def test_cells_are_no_formulas_and_are_read_back(text: str) -> None:
    cell = to_cell(text)
    assert from_cell(cell) == text
    if cell.startswith(FORMULA):
        float(cell)


def test_numbers_in_cells_stay_numbers() -> None:
    assert [to_cell(each) for each in ("-1", "+2.5", "-1e3")] == ["-1", "+2.5", "-1e3"]
    assert to_cell("-1+2") == "'-1+2"
