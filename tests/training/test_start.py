"""`--start`: a new run begins with known weights, says what fits, and is compared with them."""

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import noneg
from noneg.cli import main
from noneg.commands.train import parse_train
from noneg.errors import NonegError
from noneg.images import find_source, load_images
from noneg.methods.base import Embeddings, Method
from noneg.methods.byol import BYOL
from noneg.networks.norms import batch_norms
from noneg.training.build import build_method, describe_encoder, measure_norms
from noneg.training.config import make_config
from noneg.training.loop import Observer
from noneg.training.plan import complete
from noneg.training.run import start
from noneg.training.start import find_start, load_start

RESNET = "resnet10t"
IMAGES = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
LABELS = np.arange(60) % 3
SETTINGS: dict[str, Any] = {
    "backbone": RESNET,
    "size": 32,
    "epochs": 1,
    "batch_size": 16,
    "precision": "32-true",
    "report": False,
}


@pytest.fixture(scope="module")
def original() -> nn.Module:
    """With running statistics as after training."""
    torch.manual_seed(0)
    network: nn.Module = timm.create_model(RESNET)
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(4, 3, 64, 64))
    return network.eval()


@pytest.fixture(scope="module")
def weights(original: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet.safetensors"
    save_file(original.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def unmoved(
    weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[noneg.Run, dict[str, Any]]:
    """A run whose learning rate is 0, and its meters."""
    out = tmp_path_factory.mktemp("run") / "run"
    run = noneg.train(
        IMAGES,
        labels=LABELS,
        start=str(weights),
        out=str(out),
        learning_rate=0.0,
        norm="frozen",
        **SETTINGS,
    )
    return run, json.loads((out / "meters.json").read_text())


def test_a_run_that_does_not_move_ends_where_it_began(
    unmoved: tuple[noneg.Run, dict[str, Any]], original: nn.Module
) -> None:
    """Weights and, with frozen norms, statistics of the file: so both rows are the same."""
    run, meters = unmoved
    expected = original.state_dict()
    for name, value in run.encoder.module.state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=name)
    scores = {score.features: (score.knn, score.linear) for score in run.scores}
    assert list(scores) == ["trained", "start", "untrained", "pixels", "patches"]
    assert scores["start"] == scores["trained"]
    against = json.loads((run.directory / "verdict.json").read_text())["against_start"]
    assert (against["outcome"], against["difference"]) == ("no difference", 0.0)
    assert meters["start"]["h"] == pytest.approx(meters["trained"]["h"])
    assert meters["start"]["h"] != meters["untrained"]["h"]
    assert "z" not in meters["start"]


def test_images_are_prepared_as_for_the_weights(
    unmoved: tuple[noneg.Run, dict[str, Any]],
) -> None:
    run, _ = unmoved
    info = run.encoder.info
    assert info.mean == (0.485, 0.456, 0.406)
    assert info.std == (0.229, 0.224, 0.225)
    assert info.interpolation == "bicubic"
    assert "resnet.safetensors" in info.data["start"]
    beginning = noneg.load(run.directory / "start")
    np.testing.assert_allclose(beginning.embed(IMAGES), run.encoder.embed(IMAGES), atol=1e-6)


def test_size_and_backbone_follow_the_start_unless_they_are_given(weights: Path) -> None:
    source = find_source(IMAGES)
    config = make_config(IMAGES, start=str(weights), backbone=RESNET)
    assert complete(config, source, find_start(config, None)).size == 176
    config = make_config(IMAGES, start=str(weights), backbone=RESNET, size=48)
    assert complete(config, source, find_start(config, None)).size == 48
    config = make_config(IMAGES, start=f"timm:{RESNET}")
    plan = complete(config, source, find_start(config, None))
    assert (plan.backbone, plan.size) == (RESNET, 176)


def test_targets_begin_at_the_start_and_heads_at_the_seed(weights: Path) -> None:
    config = make_config(IMAGES, start=str(weights), method="byol", **SETTINGS)
    known = find_start(config, None)
    assert known is not None
    images = load_images(find_source(IMAGES), channels=3, size=32)
    plan = complete(config, find_source(IMAGES), known)
    begun = build_method(plan, load_start(known, plan, images).encoder.module)
    untrained = build_method(plan)
    assert isinstance(begun, BYOL)
    assert begun.target is not None
    for name, value in begun.backbone.state_dict().items():
        assert torch.equal(begun.target[0].state_dict()[name], value), name
    convolution = "layer1.0.conv1.weight"
    assert not torch.equal(
        begun.backbone.get_parameter(convolution), untrained.backbone.get_parameter(convolution)
    )
    for name, value in begun.projector.state_dict().items():
        assert torch.equal(untrained.projector.state_dict()[name], value), name


def test_frozen_norms_keep_the_starts_statistics_and_measure_the_heads(weights: Path) -> None:
    config = make_config(IMAGES, start=str(weights), method="byol", norm="frozen", **SETTINGS)
    known = find_start(config, None)
    assert known is not None
    images = load_images(find_source(IMAGES), channels=3, size=32)
    plan = complete(config, find_source(IMAGES), known)
    beginning = load_start(known, plan, images).encoder.module
    method = build_method(plan, beginning)
    info = describe_encoder(method.backbone, plan, images, known)
    measure_norms(method, images, plan, info)
    for kept, norm in zip(batch_norms(beginning), batch_norms(method.backbone), strict=True):
        assert torch.equal(kept.running_var, norm.running_var)  # type: ignore[arg-type]
        assert norm.training
    (measured,) = batch_norms(method.projector)
    assert measured.running_var is not None
    assert not torch.equal(measured.running_var, torch.ones_like(measured.running_var))


class Interrupted(Observer):
    """Ends a run as Ctrl-C does."""

    def begin(self, step: int, total_steps: int) -> None:
        """Nothing to prepare."""

    def observe(self, step: int, epoch: int, method: Method, embeddings: Embeddings) -> None:
        if step == 2:
            signal.raise_signal(signal.SIGINT)


def test_a_resumed_run_keeps_the_start_without_its_file(weights: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "images.npz", images=IMAGES, labels=LABELS)
    file = tmp_path / "weights.safetensors"
    file.write_bytes(weights.read_bytes())
    out = tmp_path / "run"
    settings = {**SETTINGS, "epochs": 2, "out": str(out), "start": str(file)}
    config = make_config(str(tmp_path / "images.npz"), **settings)
    with pytest.raises(KeyboardInterrupt):
        start(config, observers=[Interrupted()])
    file.unlink()
    run = noneg.train(resume_from=out)
    assert [score.features for score in run.scores][:2] == ["trained", "start"]
    begun = load_file(run.directory / "start" / "encoder.safetensors")
    given = load_file(weights)
    assert all(torch.equal(value, given[name]) for name, value in begun.items())
    trained = load_file(run.directory / "encoder" / "encoder.safetensors")
    assert not torch.equal(trained["conv1.0.weight"], given["conv1.0.weight"])


def test_a_run_is_a_start_for_another_method(
    unmoved: tuple[noneg.Run, dict[str, Any]], tmp_path: Path
) -> None:
    run, _ = unmoved
    settings = {name: value for name, value in SETTINGS.items() if name not in ("backbone", "size")}
    again = noneg.train(
        IMAGES,
        labels=LABELS,
        start=str(run.directory),
        method="simsiam",
        norm="frozen",
        learning_rate=0.0,
        out=str(tmp_path / "run"),
        **settings,
    )
    assert again.config.backbone == RESNET
    assert again.encoder.info.mean == run.encoder.info.mean
    np.testing.assert_array_equal(again.encoder.embed(IMAGES), run.encoder.embed(IMAGES))


def test_what_contradicts_the_start_is_one_sentence(
    unmoved: tuple[noneg.Run, dict[str, Any]], weights: Path
) -> None:
    run = str(unmoved[0].directory)

    def begin(**settings: Any) -> None:
        find_start(make_config(IMAGES, **settings), None)

    with pytest.raises(NonegError, match="--start and --continue-from both"):
        begin(start=str(weights), continue_from=run)
    with pytest.raises(NonegError, match=r"has the backbone resnet10t, .* cannot have resnet18"):
        begin(start=run, backbone="resnet18")
    with pytest.raises(NonegError, match=r"with --norm frozen, .* cannot have group"):
        begin(start=run, norm="group")
    # Only the statistics differ.
    begin(start=run, norm="batch")


def test_the_command_line_shows_the_start_beside_the_trained_encoder(
    unmoved: tuple[noneg.Run, dict[str, Any]],
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "images.npz"
    np.savez(path, images=IMAGES, labels=LABELS)
    assert main(["evaluate", str(unmoved[0].directory), str(path)]) == 0
    *_, trained, begun, untrained, pixels, patches, _, against = (
        capsys.readouterr().out.splitlines()
    )
    assert [line.split()[0] for line in (trained, begun, untrained, pixels, patches)] == [
        *("trained", "start", "untrained", "pixels", "patches")
    ]
    assert "no difference from the start beyond chance: +0.0 points" in against
    flags = [f"--{name}={value}" for name, value in SETTINGS.items() if name != "report"]
    flags += ["--no-report", "--no-evaluate", f"--out={tmp_path / 'run'}"]
    assert main(["train", str(path), f"--start={weights}", *flags]) == 0
    said = capsys.readouterr().out
    assert f"it begins with {weights} ({RESNET}" in said
    assert "not used: fc." in said
    assert main(["train", str(path), "--start=nowhere", "--backbone=resnet18"]) == 2
    assert "there are no weights nowhere: give timm" in capsys.readouterr().err


def test_a_start_has_the_recipe_for_known_weights_and_others_have_not(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = make_config(IMAGES, start=str(weights), backbone=RESNET)
    assert (begun.recipe, begun.norm, begun.heads_first) == ("adapt", "frozen", 1.0)
    assert begun.backbone_rate < 1
    assert begun.layer_decay < 1
    other = make_config(IMAGES)
    assert (other.recipe, other.norm, other.heads_first) == ("small", "batch", 0.0)
    assert make_config(IMAGES, start=str(weights), recipe="small").recipe == "small"
    assert main(["train", "--start=timm:resnet18", "--help"]) == 0
    assert "default: frozen" in " ".join(capsys.readouterr().out.split())
    # The same from a file, in which a recipe may be named too.
    file = tmp_path / "settings.yaml"
    for written, norm in (("", "frozen"), ("recipe: small\n", "batch")):
        file.write_text(f"start: timm:resnet18\n{written}")
        assert parse_train([f"--config={file}"]).norm == norm


def test_heads_learn_first_and_frozen_stages_never(weights: Path, tmp_path: Path) -> None:
    """Four epochs of three steps: in the first one only the heads move."""
    settings: dict[str, Any] = {**SETTINGS, "evaluate": False, "learning_rate": 0.1}

    def trained(name: str, **more: Any) -> dict[str, torch.Tensor]:
        out = tmp_path / name
        run = noneg.train(IMAGES, start=str(weights), out=str(out), **{**settings, **more})
        checkpoint = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
        assert run.config.recipe == "adapt"
        return dict(checkpoint["state_dict"])

    given = load_file(weights)
    # At most a fifth of a run is for the heads alone.
    heads = trained("heads", epochs=5, freeze=2, heads_first=1.0)
    moved = {
        name.removeprefix("method.backbone."): not torch.equal(
            value, given[name.removeprefix("method.backbone.")]
        )
        for name, value in heads.items()
        if name.startswith("method.backbone.") and name.endswith("weight")
    }
    first = ("conv1", "bn1", "layer1")
    assert not any(has for name, has in moved.items() if name.startswith(first))
    assert all(has for name, has in moved.items() if not name.startswith(first))
    with pytest.raises(NonegError, match="--freeze 9: resnet10t has 5 stages"):
        trained("many", freeze=9)


def test_the_backbone_stands_still_while_only_the_heads_learn(
    weights: Path, tmp_path: Path
) -> None:
    """Observed at every step, for ten steps of which two are for the heads."""
    moved: list[tuple[bool, bool]] = []

    class Watch(Observer):
        def begin(self, step: int, total_steps: int) -> None:
            """Nothing to prepare."""

        def observe(self, step: int, epoch: int, method: Method, embeddings: Embeddings) -> None:
            now = [
                part.get_parameter(name).detach().clone()
                for part, name in (
                    (method.backbone, "layer4.0.conv1.weight"),
                    (method.get_submodule("projector"), "0.weight"),
                )
            ]
            if self.before is not None:
                moved.append(
                    tuple(not torch.equal(*pair) for pair in zip(now, self.before, strict=True))
                )  # type: ignore[arg-type]
            self.before = now

        before: list[torch.Tensor] | None = None

    config = make_config(
        IMAGES,
        start=str(weights),
        out=str(tmp_path / "run"),
        evaluate=False,
        warmup_epochs=0.0,
        heads_first=0.7,
        steps=10,
        **{name: value for name, value in SETTINGS.items() if name != "epochs"},
    )
    start(config, IMAGES, observers=[Watch()])
    assert moved[0] == (False, True)
    assert all(each == (True, True) for each in moved[2:])


def test_a_pull_that_is_strong_enough_keeps_the_start(weights: Path, tmp_path: Path) -> None:
    """Pulled all the way back after each step; without the pull the same run moves."""
    given = load_file(weights)["layer3.0.conv1.weight"]
    settings = {**SETTINGS, "evaluate": False, "learning_rate": 1.0, "backbone_rate": 1.0}
    settings |= {"heads_first": 0.0, "layer_decay": 1.0, "warmup_epochs": 0.0, "steps": 2}
    del settings["epochs"]
    for pull, is_kept in ((1e9, True), (0.0, False)):
        out = tmp_path / f"{pull:g}"
        noneg.train(IMAGES, start=str(weights), pull=pull, out=str(out), **settings)
        trained = load_file(out / "encoder" / "encoder.safetensors")["layer3.0.conv1.weight"]
        assert torch.equal(trained, given) == is_kept
    with pytest.raises(NonegError, match="--pull needs weights to pull to"):
        make_config(IMAGES, pull=0.1)


def test_mean_std_and_interpolation_may_be_given(weights: Path) -> None:
    images = load_images(find_source(IMAGES), channels=3, size=32)
    given = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bilinear"}
    config = make_config(IMAGES, start=str(weights), **SETTINGS, **given)
    known = find_start(config, None)
    plan = complete(config, find_source(IMAGES), known)
    info = describe_encoder(build_method(plan).backbone, plan, images, known)
    assert (info.mean, info.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert info.interpolation == "bilinear"
    with pytest.raises(NonegError, match="--std must be above 0"):
        make_config(IMAGES, std=[0.1, 0.0, 0.1])
    one = complete(make_config(IMAGES, mean=[0.1], std=[0.1], **SETTINGS), find_source(IMAGES))
    backbone = build_method(one).backbone
    with pytest.raises(NonegError, match="needs one mean and one std each"):
        describe_encoder(backbone, one, images)


class Gated(nn.Module):
    """The mean color, times a weight if it is positive."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.gate) * images.mean(dim=(2, 3))


@pytest.mark.parametrize(
    ("on_harm", "labeled"), [("warn", True), ("rollback", True), ("rollback", False)]
)
def test_an_encoder_that_was_harmed_is_kept_or_not(
    on_harm: str, labeled: bool, tmp_path: Path
) -> None:
    """The start sees the classes, which are colors; agreement alone closes its gate."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 4
    colors = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200], [120, 120, 120]])
    noise = rng.integers(-30, 30, (200, 16, 16, 3))
    images = (colors[labels][:, None, None] + noise).astype(np.uint8)
    settings = {**SETTINGS, "size": 16, "evaluate": False, "learning_rate": 0.0}
    del settings["backbone"]
    first = noneg.train(
        images, backbone=Gated(), labels=labels, out=str(tmp_path / "first"), **settings
    )
    settings |= {"evaluate": True, "epochs": 3, "recipe": "small", "method": "siamese"}
    settings |= {"optimizer": "adamw", "learning_rate": 3.0}
    run = noneg.train(
        images,
        labels=labels if labeled else None,
        start=str(first.directory),
        on_harm=on_harm,
        out=str(tmp_path / "run"),
        **settings,
    )
    verdict = json.loads((run.directory / "verdict.json").read_text())
    assert verdict["against_start_without_labels"]["outcome"] == "harmed"
    assert verdict.get("against_start", {}).get("outcome") == ("harmed" if labeled else None)
    is_start = np.allclose(run.encoder.embed(images), first.encoder.embed(images), atol=1e-5)
    saved = load_file(run.directory / "encoder" / "encoder.safetensors")
    begun = load_file(run.directory / "start" / "encoder.safetensors")
    assert is_start == (on_harm == "rollback")
    assert all(torch.equal(saved[name], begun[name]) for name in begun) == is_start
