"""`--continue-from`: a new run that begins with all the last weights of a finished one."""

import csv
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import noneg
from conftest import start_python, wait_for_checkpoint
from noneg.cli import main
from noneg.errors import NonegError
from noneg.images import find_source, load_images
from noneg.methods.base import Embeddings, Method
from noneg.training.batches import epoch_order
from noneg.training.build import build_method
from noneg.training.config import load_config, make_config
from noneg.training.loop import Observer
from noneg.training.origin import load_origin
from noneg.training.plan import plan_of
from noneg.training.run import start
from noneg.training.step import compute_gradient
from noneg.views import draw_views

# 11 steps per epoch.
SETTINGS: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 8,
    "backbone": "small_resnet",
    "size": 16,
    "log_every": 1,
    "optimizer": "adamw",
    "learning_rate": 0.3,
    "weight_decay": 1e-4,
    "evaluate": False,
    "report": False,
    "precision": "32-true",
}
OPTIONS: dict[str, dict[str, Any]] = {
    "byol": {"projector": (32, 16), "predictor_hidden": 16},
    "moco": {"projector": (16, 8), "queue": 64},
    "simsiam_em": {"projector": (16, 8)},
    "simsiam": {"projector": (32, 16), "predictor_hidden": 16},
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "images.npy"
    # Four colors each: something that a few steps can learn.
    colors = np.random.default_rng(0).integers(0, 256, (91, 2, 2, 3), dtype=np.uint8)
    np.save(path, colors.repeat(8, axis=1).repeat(8, axis=2))
    return path


@pytest.fixture(scope="module")
def finished(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each method."""
    place = tmp_path_factory.mktemp("runs")
    for method, options in OPTIONS.items():
        epochs = SETTINGS["epochs"] if method == "simsiam" else 1
        settings = {**SETTINGS, "epochs": epochs, "method": method, "options": options}
        noneg.train(images, out=str(place / method), **settings)
    return {method: place / method for method in OPTIONS}


def checkpoint(run: Path, name: str = "last") -> dict[str, Any]:
    state: dict[str, Any] = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return state


def assert_same_weights(one: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = one["state_dict"], other["state_dict"]
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def column(run: Path, name: str) -> list[float]:
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("method", OPTIONS)
def test_it_begins_with_all_the_last_weights_and_a_new_optimizer(
    method: str, finished: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    # With a rollback, the state before the first step is kept.
    noneg.train(continue_from=finished[method], out=str(out), steps=2, on_collapse="rollback")
    begun = checkpoint(out, "healthy")
    assert begun["global_step"] == 0
    assert_same_weights(begun, checkpoint(finished[method]))
    assert begun["optimizer_states"][0]["state"] == {}
    assert checkpoint(finished[method])["optimizer_states"][0]["state"] != {}
    # The control: training goes on from there.
    with pytest.raises(AssertionError):
        assert_same_weights(checkpoint(out), begun)


def test_the_schedule_starts_anew(finished: dict[str, Path], tmp_path: Path) -> None:
    former = finished["simsiam"]
    continued = noneg.train(continue_from=former, out=str(tmp_path / "run")).directory
    rates = column(former, "learning_rate")
    assert column(continued, "learning_rate") == rates
    # Warm-up, then a cosine.
    assert rates[0] < max(rates)
    assert rates[-1] < 0.01 * max(rates)


class Indices(Observer):
    """Records which images were in each batch."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def begin(self, step: int, total_steps: int) -> None: ...

    def observe(self, step: int, epoch: int, method: Method, embeddings: Embeddings) -> None:
        assert embeddings.index is not None
        self.seen.append(embeddings.index.clone())


def test_order_and_views_are_those_of_epochs_that_were_not_seen(
    images: Path, finished: dict[str, Path], tmp_path: Path
) -> None:
    former, out, indices = finished["simsiam"], tmp_path / "run", Indices()
    config = make_config(continue_from=former, steps=3, out=str(out))
    assert config.data == str(images)
    start(config, observers=[indices])
    assert load_config(out / "config.yaml").first_epoch == 3
    assert torch.equal(torch.cat(indices.seen), epoch_order(0, 3, 91)[:24])
    assert not torch.equal(torch.cat(indices.seen), epoch_order(0, 0, 91)[:24])

    plan = plan_of(load_config(out / "config.yaml"))
    info = noneg.load(out).info
    pixels = load_images(find_source(images), channels=3, size=info.stored_size).pixels

    def first_loss(epoch: int) -> float:
        method = build_method(plan).train()
        load_origin(method, str(former))
        index = epoch_order(0, 3, 91)[:8]
        views = draw_views(
            torch.from_numpy(pixels[index.numpy()]), index, plan.policy, size=plan.size, seed=0,
            epoch=epoch, mean=info.mean, std=info.std,
        )  # fmt: skip
        return compute_gradient(method, views, index)[0].value.item()

    assert column(out, "loss")[0] == pytest.approx(first_loss(3), rel=1e-5)
    assert column(out, "loss")[0] != pytest.approx(first_loss(0), rel=1e-5)


def test_the_method_is_told_that_its_schedule_starts_anew(
    finished: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    former, told = finished["simsiam"], []
    method = build_method(plan_of(load_config(former / "config.yaml")))
    monkeypatch.setattr(method, "begin_again", lambda: told.append(method.state_dict()))
    load_origin(method, str(former))
    (state,) = told
    for name, value in checkpoint(former)["state_dict"].items():
        assert torch.equal(state[name.removeprefix("method.")], value), name


def test_the_chain_of_runs_is_recorded(finished: dict[str, Path], tmp_path: Path) -> None:
    second, third = tmp_path / "second", tmp_path / "third"
    # A part of an epoch counts as one: its views were seen.
    noneg.train(continue_from=finished["simsiam"], steps=14, out=str(second))
    noneg.train(continue_from=second, steps=2, out=str(third))
    recorded = json.loads((third / "run.json").read_text())["origin"]
    assert (recorded["run"], recorded["steps"], recorded["next_epoch"]) == (str(second), 14, 5)
    earlier = recorded["origin"]
    assert (earlier["run"], earlier["steps"]) == (str(finished["simsiam"]), 33)
    assert (earlier["next_epoch"], earlier["origin"]) == (3, None)
    assert load_config(third / "config.yaml").first_epoch == 5
    # Verdicts compare with the untrained network of the first run.
    assert recorded["start_rows"] == earlier["start_rows"]
    losses = [float(row["loss"]) for row in recorded["start_rows"]]
    assert losses == column(finished["simsiam"], "loss")[:2]
    assert noneg.load(third).info.data["epochs"] == 5.18
    assert main(["report", str(third), "--images", "20"]) == 0
    page = (third / "report.html").read_text(encoding="utf-8")
    assert f"It continues {second} (14 steps), which continued {finished['simsiam']}" in page
    assert "epoch 6, view 1" in page


def test_it_is_repeated_from_its_settings_and_resumed_after_a_kill(
    finished: dict[str, Path], tmp_path: Path
) -> None:
    former, out, again = tmp_path / "former", tmp_path / "run", tmp_path / "again"
    shutil.copytree(finished["byol"], former)
    # Checkpoints within an epoch.
    flags = ["--epochs=5", "--checkpoint-every=7"]
    process = start_python(
        ["-m", "noneg", "train", f"--continue-from={former}", f"--out={out}", *flags]
    )
    wait_for_checkpoint(process, out)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (out / "encoder").exists()
    assert 0 < checkpoint(out)["global_step"] < 55
    assert main(["train", "--config", str(out / "config.yaml"), "--out", str(again)]) == 0
    # From here on, the run needs nothing else.
    shutil.rmtree(former)
    noneg.train(resume_from=out)
    assert_same_weights(checkpoint(out), checkpoint(again))
    assert column(out, "loss") == column(again, "loss")
    with pytest.raises(AssertionError):
        assert_same_weights(checkpoint(out), checkpoint(finished["byol"]))


def test_settings_are_those_of_the_former_run_unless_given(finished: dict[str, Path]) -> None:
    former = load_config(finished["byol"] / "config.yaml")
    config = make_config(continue_from=finished["byol"], learning_rate=0.5, options={"tau": 0.5})
    assert (config.epochs, config.batch_size, config.learning_rate) == (1, 8, 0.5)
    assert (config.options.tau, config.options.projector) == (0.5, (32, 16))
    assert config.views == former.views
    assert make_config(continue_from=finished["byol"], minutes=2).epochs is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "moco"}, "was trained with --method byol, and a run that continues it cannot"),
        ({"backbone": "resnet18"}, "--backbone small_resnet"),
        ({"size": 32}, "--size 16"),
        ({"norm": "group"}, "--norm batch"),
        ({"data": "shapes"}, r"--data .*images\.npy"),
        ({"options": {"projector": (64, 16)}}, "do not fit the --options"),
    ],
)
def test_what_cannot_change_is_named(
    settings: dict[str, Any], said: str, finished: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(NonegError, match=said):
        noneg.train(continue_from=finished["byol"], out=str(tmp_path / "run"), **settings)
    assert not (tmp_path / "run").exists()


def test_a_run_that_cannot_be_continued_is_one_sentence(
    finished: dict[str, Path], tmp_path: Path
) -> None:
    def refusal(run: Path) -> str:
        with pytest.raises(NonegError) as refused:
            noneg.train(continue_from=run, out=str(tmp_path / "out"))
        return str(refused.value)

    run = tmp_path / "run"
    assert "is not a run: it has no config.yaml" in refusal(run)
    shutil.copytree(finished["simsiam"], run)
    path = run / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:1000])
    assert "last.ckpt is damaged: copy the run again" in refusal(run)
    path.unlink()
    assert f"cannot be continued without {path}" in refusal(run)
    shutil.rmtree(run / "encoder")
    assert (
        f"is not finished, and could still change: finish it with noneg train --resume {run}"
        in (refusal(run))
    )


def test_images_in_memory_are_given_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    run = noneg.train(pixels, out=str(tmp_path / "run"), **{**SETTINGS, "epochs": 1}).directory
    with pytest.raises(NonegError, match="in memory: continue it from Python"):
        noneg.train(continue_from=run)
    assert "warning" not in capsys.readouterr().out
    noneg.train(pixels[:32], continue_from=run, out=str(tmp_path / "more"))
    assert "was trained on 40 images, and there are 32" in capsys.readouterr().out
