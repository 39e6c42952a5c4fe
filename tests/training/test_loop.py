"""The training loop as users see it: rows, stops, epochs, memory."""

import csv
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import noneg
from noneg.errors import NonegError


def noise(count: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


def test_a_diverging_run_stops_with_one_sentence_and_keeps_its_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(NonegError, match=r"lower --learning-rate \(now 1e\+30\)"):
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
        # Eigenvalues are only measured at the first and the last step, and few between.
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


def test_too_few_images_are_an_error_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(
        NonegError, match=r"10 readable images, fewer than one batch of 64.*--batch-size"
    ):
        noneg.train(noise(10), out=str(tmp_path), batch_size=64)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc returns memory at once")
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
    # Without this, glibc adapts its threshold to freed blocks, and sometimes keeps all by chance.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**17)}
    faults = {
        choice: int(
            subprocess.check_output([sys.executable, "-c", program, choice], env=environment)
        )
        for choice in ("keep", "leave")
    }
    # 160 MiB are 40,960 pages, or 80 huge pages.
    assert faults["keep"] < 40 < faults["leave"]


def test_an_epoch_has_the_right_number_of_steps(tmp_path: Path) -> None:
    """Targets held for an epoch equal targets held for its 5 steps, but not for 4."""
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
            # "auto" may take another one the next time, if both are as fast.
            precision="32-true",
            evaluate=False,
            report=False,
        )
        return run.encoder.module.state_dict()

    epoch, same, other = weights("epoch"), weights(5), weights(4)
    assert all(torch.equal(value, same[name]) for name, value in epoch.items())
    assert not all(torch.equal(value, other[name]) for name, value in epoch.items())
