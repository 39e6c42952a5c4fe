"""A full or read-only disk: one sentence, exit code 2, and what was there before stays as it was.

Make room, and the same command works.
"""

import os
import shutil
import stat
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from real_runs import Disk, command

from noneg.classifier.classifier import Classifier, load_classifier
from noneg.cli import main
from noneg.collection.approximate import kept_index
from noneg.collection.neighbors import unit
from noneg.errors import MachineError
from noneg.training.checkpoints import write_checkpoint
from untrained_encoders import untrained_encoder

CLASSES = ("one", "other")
BLOCK = 4096
MEGABYTES = 16
"""Of the disk."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("photos") / "photos"
    pixels = np.random.default_rng(0).integers(0, 256, (150, 16, 16, 3), dtype=np.uint8)
    for number, each in enumerate(pixels):
        folder = place / CLASSES[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(each).save(folder / f"{number:03}.png")
    return place


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder and a classifier, which are the same directory."""
    encoder = untrained_encoder(size=16)
    weight, bias = torch.randn(2, encoder.info.features), torch.zeros(2)
    place = tmp_path_factory.mktemp("made")
    Classifier(encoder, weight, bias, CLASSES, 1.0, {"accuracy": 1.0}).save(place)
    return place


WRITING: dict[str, tuple[list[str], str]] = {
    "table": (["embed", "MADE", "PHOTOS"], "a.parquet"),
    "parts": (["embed", "MADE", "PHOTOS"], "parts"),
    "table with pictures": (["embed", "MADE", "PHOTOS", "--pictures"], "a.parquet"),
    "page of outliers": (["outliers", "MADE", "PHOTOS", "--no-cache"], "a.html"),
    "JSON of outliers": (["outliers", "MADE", "PHOTOS", "--no-cache"], "a.json"),
    "CSV of predictions": (["predict", "MADE", "PHOTOS"], "a.csv"),
    "picture of views": (["views", "PHOTOS", "--method=byol"], "a.png"),
    "classifier": (["finetune", "MADE", "PHOTOS", "--epochs=0"], "new"),
    "export for timm": (["export", "MADE", "--format=timm"], "timm"),
}
"""A command without its --out, and the name of that."""


@pytest.fixture
def refused(disk: Disk, capsys: pytest.CaptureFixture[str]) -> Callable[[list[str], str], str]:
    """A function: the command ends with one sentence, and changes no file on the disk."""

    def check(arguments: list[str], reason: str) -> str:
        before = disk.contents()
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert "Traceback" not in said
        (sentence,) = [line for line in said.splitlines() if line.startswith("noneg: ")]
        assert reason in sentence
        after = disk.contents()
        # It says what the parts are of.
        after.pop("parts/_noneg.json", None)
        assert after == before
        return sentence

    return check


@pytest.mark.parametrize("what", WRITING)
def test_what_commands_write(
    what: str, photos: Path, made: Path, disk: Disk, refused: Callable[[list[str], str], str]
) -> None:
    arguments, name = WRITING[what]
    places = {"MADE": str(made), "PHOTOS": str(photos)}
    out = disk.place / name
    arguments = [*(places.get(each, each) for each in arguments), f"--out={out}"]
    if out.suffix:
        out.write_text("as it was")
    with disk.read_only():
        sentence = refused(arguments, "make the disk writable, or choose another place")
        assert f"{out} cannot be written (Read-only file system), so it stays as" in sentence
    with disk.filled(room=BLOCK):
        sentence = refused(arguments, "(No space left on device), so it stays as it was: make room")
        assert str(out) in sentence
    assert main(arguments) == 0
    assert disk.contents().get(name) != b"as it was"
    assert not [each for each in disk.contents() if "unfinished" in each]


@pytest.mark.parametrize(("format", "name"), [("torch", "a.pt2"), ("openvino", "a.xml")])
def test_exports_that_take_long(
    format: str, name: str, made: Path, disk: Disk, refused: Callable[[list[str], str], str]
) -> None:
    if format == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed: noneg[openvino]")
    (disk.place / name).write_text("as it was")
    arguments = ["export", str(made), f"--format={format}", f"--out={disk.place / name}"]
    with disk.filled(room=BLOCK):
        refused(arguments, "(No space left on device), so it stays as it was: make room")


@pytest.mark.parametrize("what", ["finetune", "curve", "evaluate", "outliers", "embed", "export"])
def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    what: str, disk: Disk, refused: Callable[[list[str], str], str]
) -> None:
    """There is neither an encoder nor an image, which would be the next sentence."""
    more = {"embed": ["--pictures"], "export": ["--format=torch"]}.get(what, [])
    missing = [str(disk.place / "none"), *(["none"] if what != "export" else [])]
    name = {"finetune": "new/one", "embed": "a.parquet"}.get(what, "a.json")
    arguments = [what, *missing, f"--out={disk.place / name}", *more]
    with disk.read_only():
        refused(arguments, f"{name} cannot be written (Read-only file system)")
    with disk.filled():
        refused(arguments, f"{name} cannot be written (No space left on device)")
    (disk.place / "new").write_text("")
    refused([*arguments, f"--out={disk.place / 'new' / name}"], "(Not a directory), so it stays as")
    if what not in ("finetune", "embed"):
        folder = disk.place / f"folder-{name}"
        folder.mkdir()
        refused([*arguments, f"--out={folder}"], "(Is a directory), so it stays as it was: add")


def test_a_study(disk: Disk, refused: Callable[[list[str], str], str]) -> None:
    """With `--budget 0` only its images and its page are written."""
    out = disk.place / "studies"
    arguments = ["study", "bare-siamese", "--quick", "--budget=0", f"--out={out}"]
    with disk.read_only():
        refused(arguments, f"{out} cannot be written (Read-only file system)")
    with disk.filled(room=BLOCK):
        refused(arguments, "shapes-train-128.npz cannot be written (No space left on device)")
    assert main(arguments) == 0
    (out / "bare-siamese.csv").write_text("as it was")
    with disk.filled(room=BLOCK):
        refused(arguments, f"{out} cannot be written (No space left on device)")
    assert main(arguments) == 0
    assert disk.contents()["studies/bare-siamese.csv"] != b"as it was"


def test_the_report(
    photos: Path,
    make_run: Callable[..., Path],
    disk: Disk,
    refused: Callable[[list[str], str], str],
) -> None:
    runs = [str(make_run(name, str(photos))) for name in ("first", "second")]
    arguments = ["report", *runs, f"--out={disk.place / 'page.html'}"]
    with disk.read_only():
        refused(arguments, "page.html cannot be written (Read-only file system)")
    with disk.filled(room=BLOCK):
        refused(arguments, "page.html cannot be written (No space left on device)")
    assert main(arguments) == 0


def test_what_is_kept_for_the_next_time_only_costs_time(
    photos: Path, made: Path, disk: Disk, tmp_path: Path
) -> None:
    """Embeddings beside the images, and an index."""
    images = disk.place / "photos"
    shutil.copytree(photos, images)
    found = []
    for fault in (disk.read_only(), disk.filled(room=BLOCK), nullcontext()):
        with fault:
            found.append(tmp_path / f"{len(found)}.json")
            assert not list(disk.place.glob(".noneg/*"))
            assert main(["outliers", str(made), str(images), f"--out={found[-1]}"]) == 0
    assert len({each.read_text() for each in found}) == 1
    assert len(list(disk.place.glob(".noneg/*.safetensors"))) == 1

    pytest.importorskip("faiss", reason="faiss is not installed: noneg[index]")
    vectors = unit(np.random.default_rng(0).standard_normal((500, 16), dtype=np.float32))
    before = disk.contents()
    for fault in (disk.read_only(), disk.filled(room=BLOCK)):
        with fault:
            assert len(kept_index(disk.place / "new" / "index.faiss", vectors)) == 500
        assert disk.contents() == before


def test_decoded_images(photos: Path, disk: Disk, refused: Callable[[list[str], str], str]) -> None:
    out = disk.place / "run"
    with disk.filled(room=BLOCK):
        refused(
            command(photos, out, cache="disk"),
            f"images.bytes: the disk is full; no step of {out} is saved yet: make room, then start",
        )
        assert not out.exists()


def test_a_run_that_has_begun_but_not_saved_is_resumed(
    photos: Path, disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    out = disk.place / "run"
    with disk.filled(room=16 * BLOCK):
        assert main(command(photos, out, steps=5)) == 2
        assert (
            f"last.ckpt: the disk is full; no step of {out} is saved yet: make room, then noneg "
            f"train --resume {out}" in capsys.readouterr().err
        )
        assert not list((out / "checkpoints").iterdir())
    assert main(["train", "--resume", str(out)]) == 0


def test_a_checkpoint_wherever_the_disk_is_full(disk: Disk) -> None:
    """Torch raises errors of its own about some writes that fail."""
    path = disk.place / "last.ckpt"
    state = {"global_step": 3, "state_dict": {str(each): torch.zeros(9000) for each in range(6)}}
    write_checkpoint(path, state)
    before = path.read_bytes()
    for room in range(0, len(before), 4 * BLOCK):
        with disk.filled(room=room):
            with pytest.raises(MachineError, match="No space left on device"):
                write_checkpoint(path, state)
            assert disk.contents() == {"last.ckpt": before}
    write_checkpoint(path, state)


@pytest.mark.parametrize("umask", [0o022, 0o007])
def test_the_umask_decides_who_may_read(
    umask: int, photos: Path, made: Path, tmp_path: Path
) -> None:
    """Colleagues on a shared disk can use what one of them has made."""
    shutil.copytree(photos / CLASSES[0], tmp_path / "photos")
    given = set(tmp_path.rglob("*"))
    before = os.umask(umask)
    try:
        load_classifier(made).save(tmp_path / "classifier")
        assert main(["export", str(made), "--format=timm", f"--out={tmp_path / 'timm'}"]) == 0
        assert main(["outliers", str(made), str(tmp_path / "photos")]) == 0
        write_checkpoint(tmp_path / "last.ckpt", {"global_step": 3, "state_dict": {}})
    finally:
        os.umask(before)
    written = set(tmp_path.rglob("*")) - given
    assert len([each for each in written if each.suffix == ".safetensors"]) == 4
    for each in written:
        usual = (0o777 if each.is_dir() else 0o666) & ~umask
        assert stat.S_IMODE(each.stat().st_mode) == usual, each
