"""The engine's parts: order of images, parameter groups, learning rates, hardware, stops."""

import csv
import itertools
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import noneg
from conftest import TinyBackbone
from noneg.errors import NonegError
from noneg.methods.simsiam import Options, SimSiam
from noneg.training.batches import Batches, epoch_order
from noneg.training.build import build_method, choose_batch_size, choose_size
from noneg.training.config import TrainConfig, make_config
from noneg.training.hardware import choose_hardware
from noneg.training.optimizers import (
    build_optimizer,
    parameter_groups,
    rate_share,
    set_learning_rates,
)


def indices(batches: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> list[list[int]]:
    return [index.tolist() for _, index in batches]


def test_an_epoch_shows_each_image_once_in_another_order() -> None:
    first, second = epoch_order(0, 0, 50), epoch_order(0, 1, 50)
    assert sorted(first.tolist()) == list(range(50))
    assert not torch.equal(first, second)
    assert not torch.equal(first, epoch_order(1, 0, 50))


def test_batches_begin_at_the_current_step() -> None:
    pixels = np.tile(np.arange(23, dtype=np.uint8)[:, None, None, None], (1, 1, 2, 2))
    step = 0
    batches = Batches(pixels, 5, seed=0, current_step=lambda: step)
    assert len(batches) == 4
    whole = indices(iter(batches))
    assert len({image for batch in whole for image in batch}) == 20
    step = 2
    assert indices(iter(batches)) == whole[2:]
    step = 4
    assert indices(iter(batches)) != whole
    for images, index in batches:
        assert torch.equal(images[:, 0, 0, 0].to(torch.int64), index)


def test_ranks_share_a_batch() -> None:
    pixels = np.zeros((30, 1, 2, 2), dtype=np.uint8)
    whole = indices(iter(Batches(pixels, 8, 0, lambda: 0)))
    parts = [indices(iter(Batches(pixels, 8, 0, lambda: 0, rank, 4))) for rank in range(4)]
    for number, batch in enumerate(whole):
        assert [image for part in parts for image in part[number]] == batch


def test_groups_decay_weights_alone_and_give_the_predictor_its_own_rate() -> None:
    options = Options(projector=(8, 8), predictor_hidden=4, predictor_rate=3.0)
    method = SimSiam(TinyBackbone(), 16, options)
    config = TrainConfig(learning_rate=0.1, weight_decay=0.01, bias_rate=0.5)
    groups = parameter_groups(method, config, batch_size=512)
    grouped = [parameter for group in groups for parameter in group["params"]]
    assert len(grouped) == len(set(grouped)) == len(list(method.parameters()))
    predictor = set(method.predictor.parameters())
    for group in groups:
        for parameter in group["params"]:
            is_weight = parameter.ndim > 1
            assert group["weight_decay"] == (0.01 if is_weight else 0.0)
            rate = 0.1 * 2 * (1.0 if is_weight else 0.5) * (3.0 if parameter in predictor else 1.0)
            assert group["full_rate"] == pytest.approx(rate)
            assert group["constant"] == (parameter in predictor)


def test_the_schedule_warms_up_and_ends_at_zero() -> None:
    shares = [rate_share(step, 100, 10) for step in range(100)]
    assert shares[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert shares[10] == 1
    assert shares[55] == pytest.approx(0.5)
    assert all(a > b for a, b in itertools.pairwise(shares[10:]))
    assert 0 < shares[99] < 1e-3
    assert rate_share(0, 1, 0) == 1


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lars"])
def test_constant_groups_keep_their_rate(optimizer: str) -> None:
    method = SimSiam(TinyBackbone(), 16, Options(projector=(8, 8), predictor_hidden=4))
    config = TrainConfig(optimizer=optimizer, learning_rate=0.1)  # type: ignore[arg-type]
    built = build_optimizer(method, config, batch_size=256)
    set_learning_rates(built, 0.25)
    rates = {group["constant"]: group["lr"] for group in built.param_groups}
    assert rates == {True: pytest.approx(0.1), False: pytest.approx(0.025)}


def test_hardware_is_what_was_asked_for_and_says_why() -> None:
    asked = choose_hardware(TrainConfig(accelerator="cpu", precision="32-true"))
    assert (asked.accelerator, asked.precision) == ("cpu", "32-true")
    chosen = choose_hardware(TrainConfig(accelerator="cpu"))
    assert chosen.precision in ("bf16-mixed", "32-true")
    assert "cpu" in chosen.reason


def test_sizes_and_batches_fit_the_images() -> None:
    assert [choose_size(natural) for natural in (28, 32, 64, 96, 400)] == [32, 32, 64, 64, 64]
    assert choose_batch_size(50_000, 256) == 256
    assert choose_batch_size(4_000, 256) == 128
    assert choose_batch_size(250, 256) == 64
    assert choose_batch_size(100, 256) == 32
    assert choose_batch_size(5, 256) == 2


def test_weights_depend_on_the_seed_and_leave_the_global_state() -> None:
    config = make_config("shapes", backbone="small_resnet", size=32, channels=3)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = build_method(config).state_dict()
    assert torch.equal(torch.rand(3), expected)
    two = build_method(config).state_dict()
    other = build_method(
        make_config("shapes", seed=1, size=32, channels=3, backbone="small_resnet")
    )
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert not torch.equal(
        one["backbone.conv1.weight"], other.state_dict()["backbone.conv1.weight"]
    )


def noise(count: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


def test_a_diverging_run_stops_with_a_sentence_and_keeps_its_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(NonegError, match=r"lower --learning_rate \(now 1e\+30\)"):
        noneg.train(
            noise(),
            out=str(tmp_path),
            method="vicreg",
            epochs=50,
            batch_size=8,
            learning_rate=1e30,
            optimizer="sgd",
            warmup_epochs=0.0,
            precision="32-true",
            checkpoint_every=1,
        )
    checkpoint = tmp_path / "checkpoints" / "last.ckpt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)["state_dict"]
        assert all(torch.isfinite(value).all() for value in state.values())


def test_metrics_have_every_term_and_both_meters(tmp_path: Path) -> None:
    run = noneg.train(
        noise(), out=str(tmp_path), epochs=3, batch_size=8, log_every=4, evaluate=False
    )
    with (run.directory / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [1, 4, 8, 12, 15]
    for row in rows:
        names = ("invariance", "variance_1", "covariance_1", "variance_2", "covariance_2")
        terms = sum(float(row[name]) for name in names)
        assert float(row["loss"]) == pytest.approx(terms, rel=1e-4)
        assert int(row["views"]) == int(row["step"]) * 16
        for meter in ("std_h", "std_z"):
            assert 0 <= float(row[meter]) <= 1.01
        for meter in ("participation_ratio_h", "participation_ratio_z"):
            assert 1 <= float(row[meter]) <= 40
        # Eigenvalues are for the first step, the last, and few in between.
        assert bool(row["effective_rank_h"]) == (int(row["step"]) in (1, 15))
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates[-1] < rates[1]
    with (run.directory / "spectra.csv").open(newline="") as file:
        spectra = list(csv.DictReader(file))
    assert [(row["step"], row["embedding"]) for row in spectra] == [
        ("1", "h"),
        ("1", "z"),
        ("15", "h"),
        ("15", "z"),
    ]
    for row, spectrum in zip((rows[0], rows[0], rows[-1], rows[-1]), spectra, strict=True):
        eigenvalues = [float(spectrum[f"lambda_{i}"] or 0) for i in range(1, 257)]
        assert eigenvalues == sorted(eigenvalues, reverse=True)
        share = float(row[f"top_share_{spectrum['embedding']}"])
        assert eigenvalues[0] / sum(eigenvalues) == pytest.approx(share, rel=1e-4)


def test_too_few_images_name_the_fix(tmp_path: Path) -> None:
    with pytest.raises(
        NonegError, match=r"10 readable images, fewer than one batch of 64.*--batch_size"
    ):
        noneg.train(noise(10), out=str(tmp_path), batch_size=64)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone returns memory so soon")
def test_freed_memory_is_used_again_without_page_faults() -> None:
    program = (
        "import resource, sys, torch\n"
        "from noneg.training.hardware import keep_freed_memory\n"
        "assert sys.argv[1] == 'leave' or keep_freed_memory()\n"
        "for step in range(4):\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    activations = [torch.ones(2**21) for layer in range(20)]\n"
        "    del activations\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    # Without this, glibc adapts its threshold to what is freed, and at times keeps all by chance.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**17)}
    faults = {
        choice: int(
            subprocess.check_output([sys.executable, "-c", program, choice], env=environment)
        )
        for choice in ("keep", "leave")
    }
    # 160 MiB are 40,960 pages, or 80 huge ones.
    assert faults["keep"] < 40 < faults["leave"]


def test_an_epoch_is_as_many_steps_as_it_has(tmp_path: Path) -> None:
    """Targets held for an epoch are those held for its 5 steps, and not those held for 4."""
    pixels = np.random.default_rng(0).integers(0, 256, (43, 16, 16, 3), dtype=np.uint8)

    def weights(hold: int | str) -> dict[str, torch.Tensor]:
        run = noneg.train(
            pixels,
            out=str(tmp_path / str(hold)),
            method="simsiam",
            options={"hold": hold, "projector": [16, 8], "predictor_hidden": 4},
            epochs=3,
            batch_size=8,
            backbone="test_byobnet",
            evaluate=False,
            report=False,
        )
        return run.encoder.module.state_dict()

    epoch, same, other = weights("epoch"), weights(5), weights(4)
    assert all(torch.equal(value, same[name]) for name, value in epoch.items())
    assert not all(torch.equal(value, other[name]) for name, value in epoch.items())
