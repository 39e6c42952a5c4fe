"""Parquet parts: the rows of one table, whoever writes them and however often they are killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.dataset
import pyarrow.parquet
import pytest
from PIL import Image

from noneg.cli import main
from noneg.collection.embedded import fingerprint
from noneg.commands import embed as command
from noneg.errors import NonegError
from noneg.export.parquet import write_parquet
from noneg.export.parts import Share, embed_parts, images_per_part, part_file
from noneg.images.folder import FolderSource
from untrained_encoders import untrained_encoder

COUNT = 700
BROKEN = ("0003.png", "0500.png")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 3), dtype=np.uint8)
    for number, each in enumerate(pixels):
        Image.fromarray(each).save(folder / f"{number:04}.png")
    for name in BROKEN:
        (folder / name).write_bytes(b"not a picture")
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("encoder")
    untrained_encoder(size=8).save(directory)
    return str(directory)


def rows_of(place: Path) -> dict[str, np.ndarray]:
    """Embeddings by name; a name that is there twice is an error."""
    table = pyarrow.dataset.dataset(place, format="parquet").to_table()
    names = table["path"].to_pylist()
    assert len(set(names)) == len(names)
    return dict(zip(names, np.array(table["embedding"].to_pylist()), strict=True))


def assert_all_there(directory: Path, photos: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.parquet"
    write_parquet(alone, untrained_encoder(size=8), photos)
    expected, found = rows_of(alone), rows_of(directory)
    assert set(found) == set(expected)
    assert len(found) == COUNT - len(BROKEN)
    for name, vector in expected.items():
        np.testing.assert_allclose(found[name], vector, rtol=1e-4, atol=1e-5)


def test_parts_have_the_rows_and_the_order_of_one_table(photos: Path, tmp_path: Path) -> None:
    written = embed_parts(tmp_path / "parts", untrained_encoder(size=8), photos)
    assert written is not None
    assert written.rows == COUNT - len(BROKEN)
    assert [image.name for image in written.skipped] == list(BROKEN)
    assert_all_there(tmp_path / "parts", photos, tmp_path)
    names = [
        name
        for number in range(3)
        for name in pyarrow.parquet.read_table(part_file(tmp_path / "parts", number))[
            "path"
        ].to_pylist()
    ]
    assert names == sorted(names)


def test_each_process_writes_its_parts_and_the_last_one_counts(
    photos: Path, tmp_path: Path
) -> None:
    out, encoder = tmp_path / "parts", untrained_encoder(size=8)
    assert embed_parts(out, encoder, photos, share=Share(1, 2)) is None
    assert [path.name for path in sorted(out.glob("*.parquet"))] == ["part-00001.parquet"]
    written = embed_parts(out, encoder, photos, share=Share(0, 2))
    assert written is not None
    assert written.rows == COUNT - len(BROKEN)
    assert_all_there(out, photos, tmp_path)


def test_arrays_keep_the_index_of_the_whole(tmp_path: Path) -> None:
    images = np.random.default_rng(1).integers(0, 256, (300, 8, 8, 3), dtype=np.uint8)
    encoder = untrained_encoder(size=8)
    embed_parts(tmp_path / "parts", encoder, images)
    table = pyarrow.dataset.dataset(tmp_path / "parts", format="parquet").to_table()
    assert table["index"].to_pylist() == list(range(300))
    np.testing.assert_allclose(
        np.array(table["embedding"].to_pylist()), encoder.embed(images), rtol=1e-4, atol=1e-5
    )


def test_killed_processes_lose_and_double_nothing(saved: str, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "parts"
    arguments = [sys.executable, "-m", "noneg", "embed", saved, str(photos), "--out", str(out)]
    # Small batches, so that there is time between the parts.
    killed = subprocess.Popen(
        [*arguments, "--devices", "2", "--batch-size", "4"],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 120
    while not list(out.glob("part-*.unfinished")) and killed.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert list(out.glob("part-*.unfinished"))
    assert len(list(out.glob("*.parquet"))) < 3
    resumed = subprocess.run(arguments, check=False, capture_output=True, text=True, timeout=300)
    assert resumed.returncode == 0, resumed.stderr
    assert f"{COUNT - len(BROKEN)} embeddings of" in resumed.stdout
    assert not list(out.glob("*.unfinished"))
    assert_all_there(out, photos, tmp_path)


def test_a_failed_process_is_named_and_the_others_finish(
    saved: str, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "parts"
    assert main(["embed", saved, str(photos), "--out", str(out), "--devices", "2", "--strict"]) == 2
    printed = capfd.readouterr().err
    assert "0003.png" in printed
    assert "process 1 of 2 failed; what is complete is kept" in printed
    assert "Traceback" not in printed


def test_torchrun_tells_the_share(
    saved: str,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    out = tmp_path / "parts"
    assert main(["embed", saved, str(photos), "--out", str(out)]) == 0
    assert [path.name for path in out.glob("*.parquet")] == ["part-00002.parquet"]
    monkeypatch.setenv("RANK", "3")
    assert main(["embed", saved, str(photos), "--out", str(out)]) == 2
    assert "RANK is '3' and WORLD_SIZE is '3'" in capsys.readouterr().err


def test_what_does_not_belong_together_is_refused(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "parts"
    embed_parts(out, untrained_encoder(size=8), photos)
    with pytest.raises(NonegError, match="another encoder or of other images"):
        embed_parts(out, untrained_encoder(size=8, seed=1), photos)
    with pytest.raises(NonegError, match="another encoder or of other images"):
        embed_parts(out, untrained_encoder(size=8).in_precision("bfloat16"), photos)
    part_file(out, 1).write_bytes(b"PAR1 and nothing else")
    with pytest.raises(NonegError, match=r"part-00001.parquet is damaged .* remove it"):
        embed_parts(out, untrained_encoder(size=8), photos)


def test_no_readable_image_at_all_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"nothing")
    with pytest.raises(NonegError, match=r"None of the images .* a\.png"):
        embed_parts(tmp_path / "parts", untrained_encoder(size=8), folder)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--out", "x.parquet", "--devices", "2"], "give a directory, such as x"),
        (["--out", "x", "--devices", "0"], "give at least 1"),
        (["--out", "x", "--pictures"], "--pictures needs all images in one table"),
    ],
)
def test_contradictions_are_one_sentence(
    arguments: list[str], sentence: str, saved: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["embed", saved, "shapes", *arguments]) == 2
    printed = capsys.readouterr().err
    assert sentence in printed
    assert printed.count("\n") == 1


def test_there_are_parts_to_share_and_none_is_huge() -> None:
    for count in (1, 300, 20_000, 10**8):
        size = images_per_part(count)
        assert 256 <= size <= 16_384
        assert -(-count // size) <= max(64, count / 16_384 + 1)


def test_bfloat16_is_close_and_never_mixed_with_float32(
    saved: str,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    exact = untrained_encoder(size=8)
    coarse = exact.in_precision("bfloat16")
    assert fingerprint(exact) != fingerprint(coarse)
    out = tmp_path / "coarse.parquet"
    arguments = ["embed", saved, str(photos), "--out", str(out), "--precision", "bfloat16"]
    listed: list[Path] = []
    list_ = FolderSource.__init__
    monkeypatch.setattr(
        FolderSource, "__init__", lambda self, where: (listed.append(where), list_(self, where))[1]
    )
    assert main(arguments) == 0
    assert listed == [photos], "a folder of a million images takes long to list"
    assert "bfloat16 changes embeddings by 0." in capsys.readouterr().out
    write_parquet(tmp_path / "exact.parquet", exact, photos)
    one, two = rows_of(out), rows_of(tmp_path / "exact.parquet")
    difference = max(
        float(np.linalg.norm(one[name] - two[name]) / np.linalg.norm(two[name])) for name in two
    )
    assert 1e-5 < difference < 0.05
    monkeypatch.setattr(command, "LARGEST_DIFFERENCE", 1e-6)
    out.unlink()
    assert main(arguments) == 2
    assert not out.exists()
    assert "leave it out" in capsys.readouterr().err
