"""A run ends with the same weights on one process, on two, in chunks, and killed and resumed."""

import csv
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import noneg
from conftest import start_python, wait_for_checkpoint
from noneg.errors import NonegError
from noneg.training.distributed import is_first_process

# 4 steps per epoch, 12 in total, a checkpoint every 3 steps: the first one is within an epoch.
SETTINGS = {
    "method": "byol",
    "options.projector": "[32,16]",
    "options.predictor_hidden": 16,
    "epochs": 3,
    "batch_size": 16,
    "backbone": "small_resnet",
    "size": 16,
    "accelerator": "cpu",
    "precision": "32-true",
    # AdamW would scale rounding errors in small gradients up to a whole step.
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "log_every": 1,
    "checkpoint_every": 3,
    "evaluate": False,
    "report": False,
}
STEPS = 12
COUNTER = Path(__file__).with_name("count_reductions.py")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # 71 images: the last seven of an epoch are left out.
    path = tmp_path_factory.mktemp("images") / "images.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (71, 16, 16, 3), dtype=np.uint8))
    return path


def begin(program: list[str], images: Path, out: Path, **more: object) -> subprocess.Popen[str]:
    flags = [f"--{name}={value}" for name, value in {**SETTINGS, **more}.items()]
    return start_python([*program, "train", str(images), f"--out={out}", *flags])


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def train(images: Path, out: Path, **more: object) -> Path:
    """Train in this process."""
    settings = {**SETTINGS, **more}
    options = {
        name.removeprefix("options."): settings.pop(name)
        for name in list(settings)
        if name.startswith("options.")
    }
    options["projector"] = (32, 16)
    return noneg.train(images, out=str(out), options=options, **settings).directory


def weights(run: Path) -> dict[str, Tensor]:
    """The method's weights, targets and running statistics at the end."""
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == STEPS
    state: dict[str, Tensor] = checkpoint["state_dict"]
    encoder = load_file(run / "encoder" / "encoder.safetensors")
    for name, value in encoder.items():
        assert torch.equal(value, state[f"method.backbone.{name}"]), name
    return state


def difference(one: Path, other: Path) -> float:
    """The largest difference of two weights, relative to the largest weight."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    floating = [key for key, value in first.items() if value.is_floating_point()]
    scale = max(float(first[key].abs().max()) for key in floating)
    return max(float((first[key] - second[key]).abs().max()) for key in floating) / scale


def metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def assert_same_metrics(one: Path, other: Path) -> None:
    first, second = metrics(one), metrics(other)
    assert [int(row["step"]) for row in first] == list(range(1, STEPS + 1))
    assert len(first) == len(second)
    for row, likewise in zip(first, second, strict=True):
        assert row.keys() == likewise.keys()
        for name in row.keys() - {"seconds", "images_per_second"}:
            # Some meters are only in some rows, and some are undefined for so few images.
            values = [float(each[name] or "nan") for each in (row, likewise)]
            assert values[0] == pytest.approx(values[1], rel=1e-4, nan_ok=True), name


@pytest.fixture(scope="module")
def one_process(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("one_process")
    return {norm: train(images, place / norm, norm=norm) for norm in ("batch", "group")}


@pytest.fixture(scope="module")
def two_ranks(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("two_ranks") / "run"
    output = finish(begin(["-m", "noneg"], images, out, devices=2, strategy="ddp"))
    # Only one process prints.
    assert output.count("71 images of 3 x 16 x 16") == 1
    assert output.count("2 processes, 8 images of each batch on each") == 1
    assert output.count(f"encoder  {out / 'encoder'}") == 1
    return out


def test_two_ranks(one_process: dict[str, Path], two_ranks: Path) -> None:
    """BatchNorm has the statistics of both ranks' images, and nothing is counted twice."""
    assert difference(one_process["batch"], two_ranks) < 1e-5
    assert_same_metrics(one_process["batch"], two_ranks)
    images = np.random.default_rng(1).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    np.testing.assert_allclose(
        noneg.load(two_ranks).embed(images),
        noneg.load(one_process["batch"]).embed(images),
        atol=1e-4,
    )


def test_chunks(images: Path, one_process: dict[str, Path], tmp_path: Path) -> None:
    chunked = train(images, tmp_path / "run", norm="group", chunk_size=5)
    assert difference(one_process["group"], chunked) < 1e-5
    assert_same_metrics(one_process["group"], chunked)


def test_chunks_on_two_ranks(images: Path, one_process: dict[str, Path], tmp_path: Path) -> None:
    """Each step's gradient is sent once, not once per chunk."""
    out, counts = tmp_path / "run", tmp_path / "count.txt"
    program = [str(COUNTER), str(counts)]
    finish(begin(program, images, out, devices=2, norm="group", chunk_size=3))
    assert difference(one_process["group"], out) < 1e-5
    assert_same_metrics(one_process["group"], out)
    trained = sum(
        value.numel()
        for name, value in weights(out).items()
        if not name.startswith("method.target")
    )
    assert int(counts.read_text()) == STEPS * trained


def test_killed_within_an_epoch_and_resumed(images: Path, two_ranks: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = begin(["-m", "noneg"], images, out, devices=2, strategy="ddp")
    checkpoint = wait_for_checkpoint(process, out)
    process.send_signal(signal.SIGKILL)
    # Wait until the other rank has ended too.
    process.communicate(timeout=300)
    assert not (out / "encoder").exists()
    step = torch.load(checkpoint, weights_only=True)["global_step"]
    assert 0 < step < STEPS
    assert step % 4 != 0
    finish(start_python(["-m", "noneg", "train", "--resume", str(out)]))
    resumed, unbroken = weights(out), weights(two_ranks)
    for name, value in unbroken.items():
        assert torch.equal(resumed[name], value), name
    assert_same_metrics(two_ranks, out)


@pytest.fixture(scope="module")
def sharded(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sharded") / "run"
    finish(begin(["-m", "noneg"], images, out, devices=2, strategy="fsdp"))
    return out


def test_sharded_weights(one_process: dict[str, Path], sharded: Path) -> None:
    """FSDP; the saved encoder is complete."""
    assert difference(one_process["batch"], sharded) < 1e-5
    assert_same_metrics(one_process["batch"], sharded)


def test_muon_orthogonalizes_whole_matrices_of_sharded_weights(
    images: Path, tmp_path: Path
) -> None:
    """Each process has some rows of a weight; orthogonalized by themselves they give 2e-2.

    AdamW, for all that is no convolution, and memory without channels-last leave 2e-3.
    """
    muon = {"optimizer": "muon"}
    finish(begin(["-m", "noneg"], images, tmp_path / "two", devices=2, strategy="fsdp", **muon))
    assert difference(train(images, tmp_path / "one", **muon), tmp_path / "two") < 5e-3


def test_minutes_are_the_same_steps_on_all_ranks(images: Path, tmp_path: Path) -> None:
    """Timed on copies of the ranks' networks: the run ends as one that is given the steps."""
    settings = {name: value for name, value in SETTINGS.items() if name != "epochs"}
    flags = [f"--{name}={value}" for name, value in settings.items()]

    def train_two(out: Path, length: str) -> dict[str, Tensor]:
        program = ["-m", "noneg", "train", str(images), f"--out={out}", length, *flags]
        finish(start_python([*program, "--devices=2", "--strategy=fsdp"]))
        state = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
        state["state_dict"]["steps"] = torch.tensor(state["global_step"])
        return dict(state["state_dict"])

    timed = train_two(tmp_path / "timed", "--minutes=0.02")
    assert not (tmp_path / "timed" / "timing").exists()
    given = train_two(tmp_path / "given", f"--steps={int(timed['steps'])}")
    assert timed.keys() == given.keys()
    for name, value in timed.items():
        assert torch.equal(value, given[name]), name


def test_a_sharded_run_is_continued_in_one_process(sharded: Path, tmp_path: Path) -> None:
    """All of its weights are in one file."""
    out = tmp_path / "out"
    settings = {"epochs": 1, "learning_rate": 1e-9}
    noneg.train(continue_from=sharded, out=str(out), devices=1, strategy="auto", **settings)
    former, trained = (load_file(run / "encoder" / "encoder.safetensors") for run in (sharded, out))
    for name, value in former.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(trained[name], value, rtol=1e-5, atol=1e-7)


def test_torchrun_sets_the_number_of_processes(
    images: Path, one_process: dict[str, Path], tmp_path: Path
) -> None:
    """Without --devices and --num-nodes, the launcher decides."""
    out = tmp_path / "run"
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "noneg"]
    output = finish(begin(torchrun, images, out))
    assert output.count("71 images of 3 x 16 x 16") == 1
    assert output.count("2 processes, 8 images of each batch on each") == 1
    assert difference(one_process["batch"], out) < 1e-5
    assert_same_metrics(one_process["batch"], out)


def test_another_seed_is_another_run(
    images: Path, one_process: dict[str, Path], tmp_path: Path
) -> None:
    """The control: the comparison detects different runs."""
    assert difference(one_process["batch"], train(images, tmp_path / "run", seed=1)) > 1e-2


def test_a_batch_that_cannot_be_split_is_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(NonegError, match="--batch-size 16 cannot be split over 3 processes"):
        train(images, tmp_path / "run", devices=3, strategy="ddp")


def test_settings_that_lightning_refuses_give_one_sentence(images: Path, tmp_path: Path) -> None:
    with pytest.raises(
        NonegError,
        match=r"--strategy nonsense --precision 32-true cannot be used here: You selected",
    ):
        train(images, tmp_path / "run", strategy="nonsense")
    with pytest.raises(NonegError, match="--knn-every needs all weights on one process"):
        train(images, tmp_path / "other", devices=2, strategy="fsdp", knn_every=1)


@pytest.mark.parametrize(
    ("told", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "2", "LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
        # torchrun under SLURM may number the nodes in another order.
        ({"RANK": "0", "LOCAL_RANK": "0", "SLURM_PROCID": "1"}, True),
        ({"SLURM_PROCID": "1"}, False),
        ({"SLURM_PROCID": "0"}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, False),
    ],
)
def test_the_first_process_is_found_before_the_start(
    told: dict[str, str], first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() is first
