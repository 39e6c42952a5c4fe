"""Networks of one's own: by a function's path, or as a module in memory."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import noneg
from noneg.cli import main
from noneg.errors import NonegError
from noneg.networks.backbones import build_backbone
from noneg.networks.own import is_own, keep_module

NETWORKS = """
import torch
from torch import nn

def vector(channels):
    return nn.Sequential(nn.Conv2d(channels, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10))

def feature_map(channels, size):
    return nn.Conv2d(channels, size // 2, 3)

def bare():
    return nn.Conv2d(3, 5, 1)

def fails():
    raise RuntimeError("no such file")

def text():
    return "network"

LIST = []
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a file of networks that is not on Python's path."""
    (tmp_path / "my_networks.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each not in ("", ".")])
    monkeypatch.delitem(sys.modules, "my_networks", raising=False)
    monkeypatch.setattr("noneg.networks.own._allowed", set())
    return tmp_path


@pytest.mark.parametrize(
    ("function", "channels", "width"),
    [("vector", 2, 10), ("feature_map", 3, 8), ("bare", 3, 5)],
)
@pytest.mark.usefixtures("here")
def test_a_function_by_its_path(function: str, channels: int, width: int) -> None:
    before = list(sys.path)
    backbone = build_backbone(f"my_networks:{function}", channels=channels, size=16)
    assert sys.path == before
    assert backbone.num_features == width
    assert backbone.training
    images = torch.randn(4, channels, 16, 16)
    assert backbone(images).shape == (4, width)


@pytest.mark.usefixtures("here")
def test_feature_maps_are_averaged_over_places() -> None:
    backbone = build_backbone("my_networks:feature_map", channels=3, size=16)
    images = torch.randn(2, 3, 16, 16)
    convolution = backbone.get_submodule("network")
    torch.testing.assert_close(backbone(images), convolution(images).mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("my_networks:nothing", "cannot be found .*nothing.*give package.module:function"),
        ("no_such_module:f", "cannot be found .*no_such_module"),
        (":f", "There is no backbone named ':f'"),
        ("my_networks:fails", "fails with RuntimeError: no such file"),
        ("my_networks:text", "returns str, but must return a torch.nn.Module"),
        ("my_networks:LIST", "is a list, not a function"),
        ("<Net 99>", "was a module in memory: give it again"),
    ],
)
@pytest.mark.usefixtures("here")
def test_what_is_no_network_is_one_sentence(name: str, sentence: str) -> None:
    with pytest.raises(NonegError, match=sentence):
        build_backbone(name, channels=3, size=16)


def test_a_kept_module_is_copied_with_its_weights() -> None:
    module = nn.Conv2d(3, 4, 3)
    name = keep_module(module)
    assert is_own(name)
    weight = module.weight.detach().clone()
    nn.init.zeros_(module.weight)
    first, second = (build_backbone(name, channels=3, size=8) for _ in range(2))
    for each in (first, second):
        torch.testing.assert_close(each.get_parameter("network.weight"), weight)
    assert first.get_parameter("network.weight") is not second.get_parameter("network.weight")


IMAGES = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
SETTINGS = {"epochs": 1, "batch_size": 8, "size": 16, "report": False, "evaluate": False}


def test_an_encoder_of_a_function_loads_only_if_it_is_named(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(here / "images.npy", IMAGES)
    flags = ["--epochs=1", "--batch-size=8", "--size=16", "--no-report", "--out=run"]
    assert main(["train", "images.npy", "--backbone=my_networks:vector", *flags]) == 0
    # Another process has not named it yet.
    noneg.networks.own._allowed.clear()
    with pytest.raises(NonegError, match="made by my_networks:vector, which is code"):
        noneg.load("run")
    table = ["embed", "run", "images.npy", "--out=table.parquet"]
    assert main(table) == 2
    assert "give --backbone my_networks:vector" in capsys.readouterr().err
    assert main([*table, "--backbone=my_networks:vector"]) == 0
    encoder = noneg.load("run", backbone="my_networks:vector")
    assert encoder.embed(IMAGES).shape == (40, 10)


def test_an_encoder_does_not_decide_what_code_runs(here: Path) -> None:
    """A hostile description names a module whose import would leave a mark."""
    (here / "hostile.py").write_text("open('executed', 'w')\ndef f(): pass\n")
    encoder = noneg.train(IMAGES, out="run", backbone="small_convnet", **SETTINGS).encoder
    encoder.save("encoder")
    path = here / "encoder" / "encoder.json"
    fields = json.loads(path.read_text()) | {"backbone": "hostile:f"}
    path.write_text(json.dumps(fields))
    with pytest.raises(NonegError, match="which is code"):
        noneg.load("encoder")
    assert not (here / "executed").exists()


def test_a_module_is_trained_from_its_weights_and_loaded_into_another(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
    before = {name: value.clone() for name, value in module.state_dict().items()}
    run = noneg.train(
        IMAGES, backbone=module, out=str(tmp_path / "run"), learning_rate=0.0, **SETTINGS
    )
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), "the caller's module must not change"
    trained = run.encoder.module.state_dict()
    torch.testing.assert_close(trained["network.0.weight"], before["0.weight"])
    other = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
    again = noneg.load(run.directory, backbone=other)
    np.testing.assert_array_equal(again.embed(IMAGES), run.encoder.embed(IMAGES))
    # Continued and resumed runs take the module again.
    more = noneg.train(IMAGES, backbone=other, continue_from=run.directory, out=str(tmp_path / "b"))
    assert more.config.backbone == run.config.backbone


def test_a_module_for_other_images_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(NonegError, match="does not run on images of 16 x 16 pixels"):
        noneg.train(IMAGES, backbone=nn.Conv2d(4, 8, 3), out=str(tmp_path / "run"), **SETTINGS)
    with pytest.raises(NonegError, match=r"returns \[1, 3, 256\]"):
        noneg.train(IMAGES, backbone=nn.Flatten(2), out=str(tmp_path / "run"), **SETTINGS)
