"""What other tools compute from an export is what the encoder computes; their own code runs it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from noneg.classifier.classifier import Classifier, load_classifier
from noneg.cli import main
from noneg.encoder import Encoder, EncoderInfo
from noneg.errors import NonegError
from noneg.export.card import model_card
from noneg.export.check import check
from noneg.export.graph import exported, resampling_matrix
from noneg.export.timm_directory import export_timm
from noneg.export.torch_program import export_torch
from noneg.networks.backbones import build_backbone

FAMILIES = [
    ("small_convnet", 32, 3, "bilinear"),
    ("resnet18", 32, 3, "bilinear"),
    ("test_vit", 160, 3, "bicubic"),
    ("test_convnext", 64, 1, "bilinear"),
    ("test_efficientnet", 64, 5, "bilinear"),
]


def make_encoder(
    name: str = "small_convnet", size: int = 32, channels: int = 3, interpolation: str = "bilinear"
) -> Encoder:
    torch.manual_seed(0)
    module = build_backbone(name, channels=channels, size=size)
    # Running statistics and biases that are not those of a new network.
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            nn.init.normal_(each.running_mean, std=0.1)
            nn.init.uniform_(each.running_var, 0.5, 2.0)
    info = EncoderInfo(
        backbone=name,
        channels=channels,
        size=size,
        stored_size=size,
        mean=tuple(0.4 + 0.05 * c for c in range(channels)),
        std=tuple(0.2 + 0.03 * c for c in range(channels)),
        features=module.num_features,
        method="vicreg",
        data={"description": "folder <b>photos</b>", "images": 12},
        interpolation=interpolation,
    )
    return Encoder(module, info)


def pictures(count: int, channels: int, side: int) -> torch.Tensor:
    random = np.random.default_rng(0)
    return torch.from_numpy(random.integers(0, 256, (count, channels, side, side), dtype=np.uint8))


@pytest.mark.parametrize(("name", "size", "channels", "interpolation"), FAMILIES)
def test_onnx_runtime_computes_the_same(
    name: str, size: int, channels: int, interpolation: str, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript", reason="onnxscript is not installed: noneg[onnx]")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from noneg.export.onnx import export_onnx

    encoder = make_encoder(name, size, channels, interpolation)
    assert export_onnx(encoder, tmp_path / "encoder.onnx") < 1e-4
    # One file, with the weights in it.
    assert [each.name for each in tmp_path.iterdir()] == ["encoder.onnx"]
    session = onnxruntime.InferenceSession(str(tmp_path / "encoder.onnx"))
    kept = json.loads(session.get_modelmeta().custom_metadata_map["noneg"])
    assert (kept["backbone"], kept["size"]) == (name, size)
    for count, side in ((1, size), (3, size + 9), (7, size // 2)):
        images = pictures(count, channels, side)
        (found,) = session.run(None, {"images": images.numpy()})
        expected = encoder.embed_pixels(images.numpy())
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("side", "size"), [(32, 32), (13, 8), (8, 13), (224, 32), (5, 4)])
def test_products_resize_as_torch_does(side: int, size: int, interpolation: str) -> None:
    image = torch.rand(2, 3, side, side, dtype=torch.float64)
    expected = nn.functional.interpolate(
        image, size=(size, size), mode=interpolation, antialias=True
    )
    matrix = resampling_matrix(side, size, interpolation).double()
    torch.testing.assert_close(matrix @ image @ matrix.T, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize(("name", "size", "channels", "interpolation"), FAMILIES)
def test_openvino_computes_the_same(
    name: str, size: int, channels: int, interpolation: str, tmp_path: Path
) -> None:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed: noneg[openvino]")
    from noneg.export.openvino import export_openvino

    encoder = make_encoder(name, size, channels, interpolation)
    assert export_openvino(encoder, tmp_path / "encoder.xml") < 1e-4
    assert {each.name for each in tmp_path.iterdir()} == {"encoder.bin", "encoder.xml"}
    model = openvino.Core().compile_model(
        tmp_path / "encoder.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    for count, side in ((1, size), (3, size + 9)):
        images = pictures(count, channels, side).numpy()
        found = model({"images": images})["features"]
        expected = encoder.embed_pixels(images)
        np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def test_openvino_wants_an_xml_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_encoder().save(tmp_path / "encoder")
    arguments = ["export", str(tmp_path / "encoder"), "--format", "openvino", "--out"]
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert main([*arguments, str(tmp_path / "x.xml")]) == 2
    assert "pip install 'noneg[openvino]'" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "openvino", sys)
    assert main([*arguments, str(tmp_path / "x.onnx")]) == 2
    assert "give x.xml" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "size", "channels", "interpolation"), FAMILIES)
def test_torch_computes_the_same_without_noneg(
    name: str, size: int, channels: int, interpolation: str, tmp_path: Path
) -> None:
    encoder = make_encoder(name, size, channels, interpolation)
    assert export_torch(encoder, tmp_path / "encoder.pt2") < 1e-4
    images = pictures(3, channels, size + 4)
    np.save(tmp_path / "images.npy", images.numpy())
    program = """
import sys, numpy, torch
assert not any(name.startswith(("noneg", "timm")) for name in sys.modules)
model = torch.export.load(sys.argv[1] + "/encoder.pt2").module()
images = torch.from_numpy(numpy.load(sys.argv[1] + "/images.npy"))
numpy.save(sys.argv[1] + "/features.npy", model(images).detach().numpy())
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, capture_output=True)
    expected = encoder.embed_pixels(images.numpy())
    found = np.load(tmp_path / "features.npy")
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize(("name", "size", "channels", "interpolation"), FAMILIES)
def test_timm_computes_the_same(
    name: str, size: int, channels: int, interpolation: str, tmp_path: Path
) -> None:
    encoder = make_encoder(name, size, channels, interpolation)
    assert export_timm(encoder, tmp_path / "out", license="mit") < 1e-4
    names = {each.name for each in (tmp_path / "out").iterdir()}
    assert names == {"model.safetensors", "config.json", "README.md"}
    place = f"local-dir:{tmp_path / 'out'}"
    model = timm.create_model(place, pretrained=True, in_chans=channels).eval()
    images = pictures(3, channels, size)
    mean, std = (
        torch.tensor(each)[:, None, None] for each in (encoder.info.mean, encoder.info.std)
    )
    with torch.no_grad():
        found = model((images.float() / 255 - mean) / std).numpy()
    expected = encoder.embed_pixels(images.numpy())
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())
    # Without pretrained=True the weights are random.
    torch.manual_seed(1)
    other = timm.create_model(place, in_chans=channels).eval()
    with torch.no_grad():
        assert not np.allclose(other((images.float() / 255 - mean) / std).numpy(), expected)
    assert timm.create_model(place, pretrained=True, in_chans=channels, num_classes=10)(
        images.float()
    ).shape == (3, 10)
    if channels in (1, 3):
        settings = timm.data.resolve_data_config({}, model=model)
        assert tuple(settings["input_size"]) == (channels, size, size)
        assert settings["mean"] == pytest.approx(encoder.info.mean)
        assert settings["interpolation"] == interpolation


@pytest.mark.parametrize(("name", "size"), [("test_convnext", 64), ("small_convnet", 32)])
def test_noneg_begins_with_its_own_export(name: str, size: int, tmp_path: Path) -> None:
    encoder = make_encoder(name, size)
    export_timm(encoder, tmp_path / "out")
    import noneg

    again = noneg.load(f"local-dir:{tmp_path / 'out'}")
    images = pictures(2, 3, size).numpy()
    np.testing.assert_allclose(again.embed_pixels(images), encoder.embed_pixels(images), atol=1e-4)


def test_transformers_opens_the_directory(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    encoder = make_encoder("resnet18", 96)
    export_timm(encoder, tmp_path / "out")
    model = transformers.AutoModel.from_pretrained(tmp_path / "out").eval()
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "out")
    from PIL import Image

    picture = Image.fromarray(pictures(1, 3, 96)[0].permute(1, 2, 0).numpy())
    with torch.no_grad():
        found = model(**processor(picture, return_tensors="pt")).pooler_output.numpy()
    expected = encoder.embed_pixels(pictures(1, 3, 96).numpy())
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def test_a_network_that_timm_builds_differently_is_refused_and_nothing_is_replaced(
    tmp_path: Path,
) -> None:
    # Its deep stem has another stride for small images, and the same tensors.
    encoder = make_encoder("resnet26d", 64)
    (tmp_path / "config.json").write_text("mine")
    with pytest.raises(NonegError, match="other features"):
        export_timm(encoder, tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["config.json"]
    assert (tmp_path / "config.json").read_text() == "mine"


@pytest.mark.parametrize(("name", "size"), [("small_convnet", 32), ("test_convnext", 64)])
def test_classifiers_give_their_probabilities(name: str, size: int, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    encoder = make_encoder(name, size)
    torch.manual_seed(1)
    weight, bias = torch.randn(3, encoder.info.features), torch.randn(3)
    Classifier(encoder, weight, bias, ("cat", "dog", "owl"), temperature=2.0).save(tmp_path / "c")
    images = pictures(4, 3, size)
    expected = load_classifier(tmp_path / "c").probabilities(encoder.embed_pixels(images.numpy()))
    for kind in ("onnx", "torch", "timm"):
        arguments = ["export", str(tmp_path / "c"), "--format", kind]
        assert main([*arguments, "--out", str(tmp_path / kind)]) == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "onnx"))
    (found,) = session.run(["probabilities"], {"images": images.numpy()})
    np.testing.assert_allclose(found, expected, atol=1e-4)
    kept = session.get_modelmeta().custom_metadata_map
    assert json.loads(kept["classes"]) == ["cat", "dog", "owl"]
    found = torch.export.load(tmp_path / "torch").module()(images).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    model = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    info = encoder.info
    mean, std = (torch.tensor(each)[:, None, None] for each in (info.mean, info.std))
    with torch.no_grad():
        found = model((images.float() / 255 - mean) / std).softmax(1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_wrong_features_are_noticed() -> None:
    encoder = make_encoder()
    source = exported(encoder)
    scale = encoder.pixels_to_features(pictures(1, 3, 32)).square().mean().sqrt()

    def slightly_wrong(images: torch.Tensor) -> torch.Tensor:
        features = encoder.pixels_to_features(images)
        features[-1, -1] += 0.05 * scale
        return features

    for wrong in (
        slightly_wrong,
        lambda images: encoder.pixels_to_features(images)[:1],
        lambda images: encoder.pixels_to_features(images) * torch.nan,
    ):
        with pytest.raises(NonegError, match="other features"):
            check(source, wrong, "A tool")
    assert check(source, encoder.pixels_to_features, "A tool") == 0


def test_the_card_has_scores_and_no_markup_of_others() -> None:
    info = make_encoder().info
    card = model_card(
        info, "noneg_small_convnet", True, None, {"state": "healthy", "sentence": "<i>"}
    )
    assert "<b>" not in card
    assert "<i>" not in card
    assert "import noneg.networks.registered" in card
    assert card.startswith("---\ntags:")
    assert "no labels" in card


@pytest.mark.parametrize("kind", ["onnx", "timm", "torch"])
def test_the_command_writes_each_format(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxscript", reason="onnxscript is not installed: noneg[onnx]")
    make_encoder().save(tmp_path / "encoder")
    arguments = ["export", str(tmp_path / "encoder"), "--format", kind]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert "differs by at most" in capsys.readouterr().out
    assert (tmp_path / "out").exists()
    assert main([*arguments, "--out", "/proc/none/out"]) == 2
    assert "/proc/none" in capsys.readouterr().err


def test_own_networks_and_group_norm_are_refused_by_timm(tmp_path: Path) -> None:
    encoder = make_encoder()
    own = Encoder(encoder.module, make_info(encoder, backbone="my.networks:small"))
    with pytest.raises(NonegError, match="of your own"):
        export_timm(own, tmp_path / "out")
    grouped = Encoder(encoder.module, make_info(encoder, norm="group"))
    with pytest.raises(NonegError, match="--norm group"):
        export_timm(grouped, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def make_info(encoder: Encoder, **changes: object) -> EncoderInfo:
    from dataclasses import replace

    return replace(encoder.info, **changes)  # type: ignore[arg-type]


def test_without_its_packages_onnx_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from noneg.export.onnx import export_onnx

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(NonegError, match=r"pip install 'noneg\[onnx\]'"):
        export_onnx(make_encoder(), tmp_path / "x.onnx")
