"""A saved encoder is loaded without any change, and an embedding depends only on its image."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from noneg._version import __version__
from noneg.encoder import Encoder, EncoderInfo, load
from noneg.errors import NonegError
from noneg.export.parquet import write_parquet
from noneg.networks.backbones import SMALL, build_backbone

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def information(**changes: object) -> EncoderInfo:
    fields: dict[str, object] = {
        "backbone": SMALL,
        "channels": 3,
        "size": 16,
        "stored_size": 16,
        "mean": MEAN,
        "std": STD,
        "features": 256,
        "method": "vicreg",
        "data": {"description": "folder föto", "images": 12},
        "created": "2026-01-31",
    }
    return EncoderInfo(**(fields | changes))  # type: ignore[arg-type]


@pytest.fixture
def encoder() -> Encoder:
    """With running statistics as after training, so that saving them is tested as well."""
    torch.manual_seed(0)
    backbone = build_backbone(SMALL, channels=3, size=16)
    with torch.no_grad():
        for _ in range(3):
            backbone(torch.randn(8, 3, 16, 16))
    return Encoder(backbone, information())


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (23, 16, 16, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path, images: np.ndarray) -> Path:
    for index, image in enumerate(images[:6]):
        place = tmp_path / "folder" / ("deep/b" if index % 2 else "a")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{index}.png")
    return tmp_path / "folder"


FOLDER_ORDER = [0, 2, 4, 1, 3, 5]


def test_an_encoder_says_what_it_takes_and_gives(encoder: Encoder) -> None:
    assert repr(encoder) == f"Encoder({SMALL}: images of 3 x 16 x 16 -> 256 features)"


def test_round_trip_gives_the_same_bits(
    encoder: Encoder, images: np.ndarray, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    encoder.save(run / "encoder")
    before = encoder.embed(images)
    state = torch.get_rng_state()
    for place in (run, run / "encoder", str(run)):
        again = load(place)
        assert again.info == encoder.info
        assert np.array_equal(again.embed(images), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert sorted(path.name for path in (run / "encoder").iterdir()) == [
        "encoder.json",
        "encoder.safetensors",
    ]
    weights = load_file(run / "encoder" / "encoder.safetensors")
    assert set(weights) == set(encoder.module.state_dict())


def test_the_info_is_saved_completely(encoder: Encoder, tmp_path: Path) -> None:
    scored = dataclasses.replace(encoder.info, scores={"trained": {"knn": 0.5, "linear": 0.6}})
    Encoder(encoder.module, scored).save(tmp_path)
    fields = json.loads((tmp_path / "encoder.json").read_text(encoding="utf-8"))
    assert fields["format"] == 3
    assert fields["noneg"] == __version__
    assert (fields["mean"], fields["size"], fields["method"]) == (list(MEAN), 16, "vicreg")
    assert fields["data"]["description"] == "folder föto"
    assert load(tmp_path).info.scores == {"trained": {"knn": 0.5, "linear": 0.6}}


def test_loading_imports_neither_lightning_nor_training(encoder: Encoder, tmp_path: Path) -> None:
    encoder.save(tmp_path)
    program = (
        "import sys, numpy, noneg\n"
        "encoder = noneg.load(sys.argv[1])\n"
        "encoder.embed(numpy.zeros((2, 16, 16, 3), dtype=numpy.uint8))\n"
        "print([name for name in sys.modules if 'lightning' in name or 'jsonargparse' in name"
        " or name.startswith(('noneg.training', 'noneg.methods', 'sklearn'))])\n"
        "assert 'timm' in sys.modules\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert finished.stdout.strip() == "[]"


def test_pixels_are_prepared_as_the_formula_says(images: np.ndarray) -> None:
    recorded: list[torch.Tensor] = []

    class Recorder(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            recorded.append(batch)
            return batch.mean(dim=(2, 3))

    embeddings = Encoder(Recorder(), information(features=3)).embed(images, batch_size=23)
    expected = (images.astype(np.float64) / 255 - np.array(MEAN)) / np.array(STD)
    assert recorded[0].dtype == torch.float32
    np.testing.assert_allclose(recorded[0].permute(0, 2, 3, 1), expected, atol=1e-5)
    np.testing.assert_allclose(embeddings, expected.mean(axis=(1, 2)), atol=1e-5)
    # At a quarter of the stored size, antialiasing lets every pixel count.
    quarter = Encoder(Recorder(), information(features=3, size=4))
    spike = np.zeros((16, 16, 16, 3), dtype=np.uint8)
    spike[np.arange(16), 8, np.arange(16)] = 255
    quarter.embed(spike, batch_size=16)
    assert recorded[-1].shape == (16, 3, 4, 4)
    contrast = recorded[-1].amax(dim=(2, 3)) - recorded[-1].amin(dim=(2, 3))
    assert float(contrast.min()) > 0.05


def test_an_embedding_depends_only_on_its_image(encoder: Encoder, images: np.ndarray) -> None:
    whole = encoder.embed(images, batch_size=23)
    assert whole.shape == (23, 256)
    assert whole.dtype == np.float32
    assert np.ptp(whole, axis=0).max() > 0.01
    for batch_size in (1, 4, 256):
        np.testing.assert_allclose(encoder.embed(images, batch_size=batch_size), whole, atol=1e-5)
    order = np.random.default_rng(2).permutation(23)
    np.testing.assert_allclose(encoder.embed(images[order], batch_size=5), whole[order], atol=1e-5)
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
    np.testing.assert_allclose(encoder.embed(tensor), whole, atol=1e-5)


def test_an_encoder_does_not_train_and_is_not_in_training_mode(
    encoder: Encoder, images: np.ndarray
) -> None:
    before = {name: value.clone() for name, value in encoder.module.state_dict().items()}
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = encoder.pixels_to_features(pixels)
    assert features.dtype == torch.float32
    assert np.array_equal(features.numpy(), encoder.embed(images, batch_size=23))
    after = encoder.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    # A head can be trained on top of them.
    head = torch.nn.Linear(256, 2)
    head(features).sum().backward()
    assert head.weight.grad is not None


def test_a_folder_is_embedded_in_the_order_of_its_paths(
    encoder: Encoder, images: np.ndarray, folder: Path
) -> None:
    expected = encoder.embed(images)[FOLDER_ORDER]
    np.testing.assert_allclose(encoder.embed(folder), expected, atol=1e-5)
    names: list[str] = []
    blocks = []
    for batch_names, block in encoder.embed_stream(folder, batch_size=4):
        names += batch_names
        blocks.append(block)
    assert names == [
        "a/0.png",
        "a/2.png",
        "a/4.png",
        "deep/b/1.png",
        "deep/b/3.png",
        "deep/b/5.png",
    ]
    assert [len(block) for block in blocks] == [4, 2]
    np.testing.assert_allclose(np.concatenate(blocks), expected, atol=1e-5)


def test_unreadable_files_are_reported(
    encoder: Encoder, images: np.ndarray, folder: Path, tmp_path: Path
) -> None:
    (folder / "a" / "2.png").write_bytes(b"not an image")
    (folder / "a" / "4.png").write_bytes(b"")
    with pytest.raises(NonegError, match=r"2 of the 6 images .* the first a/2\.png"):
        encoder.embed(folder)
    expected = encoder.embed(images)[[0, 1, 3, 5]]
    np.testing.assert_allclose(encoder.embed(folder, skip_unreadable=True), expected, atol=1e-5)
    out = tmp_path / "out.parquet"
    written = write_parquet(out, encoder, folder)
    assert written.rows == 4
    assert [image.name for image in written.skipped] == ["a/2.png", "a/4.png"]
    paths = pyarrow.parquet.read_table(out)["path"].to_pylist()
    assert paths == ["a/0.png", "deep/b/1.png", "deep/b/3.png", "deep/b/5.png"]
    out.unlink()
    with pytest.raises(NonegError, match=r"a/2\.png"):
        write_parquet(out, encoder, folder, strict=True)
    assert list(tmp_path.glob("out*")) == []


@pytest.mark.parametrize("rows_per_group", [1, 5, 1000])
def test_parquet_holds_the_embeddings(
    encoder: Encoder,
    images: np.ndarray,
    folder: Path,
    tmp_path: Path,
    rows_per_group: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("noneg.export.parquet._BYTES_PER_ROW_GROUP", rows_per_group * 4 * 256)
    out = tmp_path / "out.parquet"
    assert write_parquet(out, encoder, images, batch_size=3).rows == 23
    table = pyarrow.parquet.read_table(out)
    assert table.schema.names == ["index", "embedding"]
    assert table.schema.field("index").type == pyarrow.int64()
    assert table.schema.field("embedding").type == pyarrow.list_(pyarrow.float32(), 256)
    assert table["index"].to_pylist() == list(range(23))
    values = np.stack(table["embedding"].to_pylist())
    np.testing.assert_allclose(values, encoder.embed(images), atol=1e-5)
    groups = {1: 8, 5: 4, 1000: 1}
    assert pyarrow.parquet.ParquetFile(out).num_row_groups == groups[rows_per_group]
    # A table of a folder has paths, and replaces an existing file.
    assert write_parquet(out, encoder, folder).rows == 6
    table = pyarrow.parquet.read_table(out)
    assert table.schema.field("path").type == pyarrow.string()
    values = np.stack(table["embedding"].to_pylist())
    np.testing.assert_allclose(values, encoder.embed(images)[FOLDER_ORDER], atol=1e-5)
    assert list(tmp_path.glob("out*")) == [out]


def test_a_failed_save_leaves_the_old_encoder(encoder: Encoder, tmp_path: Path) -> None:
    encoder.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    broken = dataclasses.replace(encoder.info, data={"images": {1, 2}})
    with pytest.raises(NonegError, match="JSON"):
        Encoder(encoder.module, broken).save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    with pytest.raises(NonegError, match="cannot be written"):
        encoder.save(tmp_path / "encoder.json" / "below_a_file")


def change_information(directory: Path, **changes: object) -> None:
    path = directory / "encoder.json"
    fields = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps(fields), encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"format": 4, "noneg": "9.9"}, r"newer noneg wrote \(9\.9\): upgrade"),
        ({"format": None}, "no format number"),
        ({"color": 1}, r"unknown fields \['color'\]"),
        ({"size": "16"}, "size = '16'"),
        ({"channels": True}, "channels = True"),
        ({"mean": [0.5, "x", 0.1]}, "mean = "),
        ({"mean": [0.5]}, "one mean and one std each"),
        ({"std": [0.1, 0.0, 0.1]}, "above 0"),
        ({"features": 128}, "says 128 features, but .* gives 256"),
        ({"backbone": "small_resnt"}, "did you mean small_resnet"),
        ({"backbone": "resnet10t"}, "do not fit its backbone resnet10t"),
        ({"channels": 1, "mean": [0.5], "std": [0.5]}, "do not fit"),
    ],
)
def test_wrong_info_is_refused(
    encoder: Encoder, tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    encoder.save(tmp_path)
    change_information(tmp_path, **changes)
    with pytest.raises(NonegError, match=sentence) as error:
        load(tmp_path)
    assert "\n" not in str(error.value)


def test_damaged_and_missing_files_are_named(encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(NonegError, match=r"no encoder in .*encoder\.json is missing"):
        load(tmp_path)
    with pytest.raises(NonegError, match="no encoder"):
        load(tmp_path / "nowhere")
    encoder.save(tmp_path)
    weights, text = tmp_path / "encoder.safetensors", tmp_path / "encoder.json"
    whole = weights.read_bytes()
    for damaged in (whole[:-100], whole[:4], b"", b"\xff" * 1000):
        weights.write_bytes(damaged)
        with pytest.raises(NonegError, match=r"encoder\.safetensors is damaged"):
            load(tmp_path)
    weights.unlink()
    with pytest.raises(NonegError, match=r"encoder\.safetensors is missing"):
        load(tmp_path)
    weights.write_bytes(whole)
    for damaged_text in ("", '{"format": 1, ', "[1]", "\x00"):
        text.write_text(damaged_text)
        with pytest.raises(
            NonegError, match=r"encoder\.json (is damaged|does not describe an encoder)"
        ):
            load(tmp_path)


def test_a_missing_or_additional_tensor_is_refused(encoder: Encoder, tmp_path: Path) -> None:
    encoder.save(tmp_path)
    weights = load_file(tmp_path / "encoder.safetensors")
    lacking = {name: value for name, value in weights.items() if name != "stage1.0.2.bias"}
    for wrong in (lacking, weights | {"surplus": torch.zeros(1)}):
        save_file(wrong, tmp_path / "encoder.safetensors")
        with pytest.raises(NonegError, match="do not fit"):
            load(tmp_path)


def test_other_channels_and_devices_are_refused(encoder: Encoder, images: np.ndarray) -> None:
    with pytest.raises(NonegError, match="3 channels, but these have 1"):
        encoder.pixels_to_features(torch.zeros(2, 1, 16, 16, dtype=torch.uint8))
    with pytest.raises(NonegError, match="'abacus' cannot be used"):
        encoder.embed(images, device="abacus")
