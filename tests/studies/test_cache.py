"""Finished runs are kept: a real study of two tiny runs, whose batch measure counts trainings."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest
from torch import Tensor

from noneg.encoder import Encoder
from noneg.errors import NonegError
from noneg.experiments.cache import RunCache, fingerprint
from noneg.experiments.conduct import conduct_study, make_run_config
from noneg.experiments.figures import bars
from noneg.experiments.judge import survives
from noneg.experiments.peak_memory import peak_memory, peak_resident
from noneg.experiments.study import Claim, JudgedStudy, Study, Variant
from noneg.images.shapes import draw_shapes
from noneg.methods.base import Embeddings, Method

STEPS = 8
# 32 images in batches of 8, two epochs.
SETTINGS: dict[str, Any] = {
    "batch_size": 8,
    "backbone": "test_byobnet",
    "log_every": 1,
    "checkpoint_every": 3,
    "evaluation_images": 24,
}


@final
class Watch:
    """Counts the logged steps of each training, and can act at one of them."""

    def __init__(self) -> None:
        self.trained: list[tuple[Method, list[float]]] = []
        self.measured = 0
        self.act: Callable[[], None] | None = None
        self.act_at = 0

    def measure_batch(self, method: Method, e: Embeddings) -> Mapping[str, float | Tensor]:
        if not any(method is known for known, _ in self.trained):
            self.trained.append((method, []))
        losses = self.trained[-1][1]
        losses.append(float(e.z.detach().square().mean()))
        if self.act is not None and len(losses) == self.act_at:
            self.act()
        return {"power": losses[-1]}

    def measure_encoder(self, encoder: Encoder, quick: bool) -> Mapping[str, float]:
        self.measured += 1
        return {"features": float(encoder.info.features), "hurried": float(quick)}

    @property
    def steps(self) -> list[int]:
        """Of each training."""
        return [len(losses) for _, losses in self.trained]


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def study(watch: Watch) -> Study:
    return Study(
        name="tiny",
        chapter=1,
        title="Tiny",
        question="Does it run?",
        variants=(
            Variant("siamese", {"method": "siamese"}),
            Variant("vicreg", {"method": "vicreg"}),
        ),
        claims=(Claim("VICReg does not collapse.", survives("vicreg")),),
        papers=("None.",),
        draw=lambda results, figure: bars(figure.subplots(), results, "knn"),
        batch_measure=watch.measure_batch,
        encoder_measure=watch.measure_encoder,
        columns=("knn", "power"),
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "images.npz"
    drawn = draw_shapes(32, seed=0, size=16)
    labels = np.arange(32) % 2
    np.savez(path, images=drawn.pixels.transpose(0, 2, 3, 1), labels=labels)
    return path


def run(study: Study, images: Path, out: Path, **more: Any) -> JudgedStudy:
    settings = {**SETTINGS, **more.pop("settings", {})}
    given = {"quick": True, "eval_data": str(images), "settings": settings, **more}
    return conduct_study(study, str(images), out=out, **given)


def numbers(judged: JudgedStudy) -> list[dict[str, float]]:
    """The numbers of each run, without times."""
    timed = {"seconds", "cpu_seconds", "images_per_second"}
    return [{k: v for k, v in row.numbers.items() if k not in timed} for row in judged.results.runs]


def test_a_run_is_trained_and_measured_once(
    study: Study, watch: Watch, images: Path, tmp_path: Path
) -> None:
    first = run(study, images, tmp_path)
    assert watch.steps == [STEPS, STEPS]
    assert watch.measured == 2
    assert [row.variant for row in first.results.runs] == ["siamese", "vicreg"]
    for row in first.results.runs:
        assert row.numbers["step"] == STEPS
        assert row.numbers["hurried"] == 1
        assert 0 <= row.numbers["knn"] <= 1
        assert row.numbers["untrained_knn"] == first.results.runs[0].numbers["untrained_knn"]
        assert {"std_h", "std_z", "effective_rank_h", "effective_rank_z"} <= row.numbers.keys()
        assert len(row.measured_curve("power")[0]) == STEPS
        assert row.numbers["cpu_seconds"] > 0
        assert row.directory is not None
        # No report per run, and nothing that only a resumed run would need.
        assert not list(row.directory.path.rglob("*.html"))
        assert not row.directory.last_checkpoint.parent.exists()
        assert not row.directory.read_scores()
    again = run(study, images, tmp_path)
    assert watch.steps == [STEPS, STEPS]
    assert watch.measured == 2
    assert again.results == first.results

    # Another setting is another run, and the first run is still there.
    other = run(study, images, tmp_path, settings={"weight_decay": 0.1})
    assert len(watch.steps) == 4
    assert numbers(other) != numbers(first)
    # Only an added variant runs, and with budget 0 nothing runs.
    extra = Variant("no variance", {"method": "vicreg", "options": {"variance": 0.0}})
    larger = replace(study, variants=(*study.variants, extra))
    judged = run(larger, images, tmp_path, budget=0.0)
    assert (len(judged.results.runs), judged.planned, len(watch.steps)) == (2, 3, 4)
    assert "2 of 3 runs" in (tmp_path / "tiny.md").read_text()
    assert len(run(larger, images, tmp_path).results.runs) == 3
    assert len(watch.steps) == 5


def test_a_run_kept_under_older_names_is_found(study: Study, tmp_path: Path) -> None:
    """The numbers of the untrained network were once called random_..."""
    cache, variant = RunCache(tmp_path, quick=True), study.variants[0]
    config = make_run_config(variant, "shapes", SETTINGS, 0, quick=False)
    directory = cache.run_directory(study, config)
    directory.path.mkdir(parents=True)
    numbers = {"knn": 0.3, "random_knn": 0.2, "pixels_knn": 0.1}
    kept = {"result.json": {"numbers": numbers, "diverged": None}}
    kept["measured-tiny.json"] = {"reads_colors": 0.5, "random_reads_colors": 0.25}
    for name, fields in kept.items():
        assert cache.finished(study, variant, config) is None
        (directory.path / name).write_text(json.dumps(fields))
    found = cache.finished(study, variant, config)
    assert found is not None
    assert dict(found.numbers) == {
        "knn": 0.3,
        "untrained_knn": 0.2,
        "pixels_knn": 0.1,
        "reads_colors": 0.5,
        "untrained_reads_colors": 0.25,
    }


def test_peak_memory_is_not_that_of_the_process_that_asks() -> None:
    held = np.ones(2**26)
    asked = peak_resident()
    program = "from noneg.experiments.peak_memory import peak_resident; print(peak_resident())"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert asked > held.nbytes / 2**20 + 100
    assert 30 < float(done.stdout) < asked - 100


def test_runs_belong_to_the_images_wherever_they_lie(
    study: Study, watch: Watch, images: Path, tmp_path: Path
) -> None:
    study = replace(study, variants=study.variants[:1])
    shown, moved = tmp_path / "images.npz", tmp_path / "moved.npz"
    shutil.copy(images, shown)

    # An unfinished run cannot resume once its images have moved.
    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    watch.act, watch.act_at = interrupt, 5
    with pytest.raises(KeyboardInterrupt, match="Run the same command again"):
        run(study, shown, tmp_path / "out")
    watch.act = None
    shown.rename(moved)
    first = run(study, moved, tmp_path / "out")
    assert watch.steps[1:] == [STEPS]
    shutil.copy(moved, shown)
    assert numbers(run(study, shown, tmp_path / "out")) == numbers(first)
    assert len(watch.steps) == 2

    # Other images under the same name are another run, and so are scores on other images.
    with np.load(images) as kept:
        labels, pixels = kept["labels"], kept["images"]
    np.savez(shown, images=pixels[:, ::-1], labels=labels)
    fingerprint.cache_clear()
    assert numbers(run(study, shown, tmp_path / "out")) != numbers(first)
    assert len(watch.steps) == 3
    run(study, moved, tmp_path / "out", eval_data=str(shown))
    assert len(watch.steps) == 4


def test_a_folder_is_known_by_its_names_and_sizes(tmp_path: Path) -> None:
    for folder in ("one", "other"):
        (tmp_path / folder / "inside").mkdir(parents=True)
        (tmp_path / folder / "inside" / "a.png").write_bytes(b"12345")
    one, other = str(tmp_path / "one"), str(tmp_path / "other")
    assert fingerprint(one) == fingerprint(other) != fingerprint("one")
    (tmp_path / "other" / "inside" / "a.png").write_bytes(b"123456")
    fingerprint.cache_clear()
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint("shapes") == "shapes"


def test_the_page_names_the_command_that_repeats_it(
    study: Study, images: Path, tmp_path: Path
) -> None:
    run(study, images, tmp_path / "out", budget=0.0, quick=False, seeds=2, settings={"size": 16})
    page = (tmp_path / "out" / "tiny.md").read_text()
    assert f"`noneg study tiny {images} --eval-data {images} --seeds 2 " in page
    assert " --set size=16" in page


def test_a_run_that_was_killed_goes_on(
    study: Study, watch: Watch, images: Path, tmp_path: Path
) -> None:
    """A copy of the directory during a step is what a killed process leaves behind."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    watch.act, watch.act_at = lambda: shutil.copytree(whole, killed, dirs_exist_ok=True), 5
    study = replace(study, variants=study.variants[:1])
    first = run(study, images, whole)
    watch.act = None
    rows = next(killed.glob("cache/*/metrics.csv")).read_text().splitlines()
    # Later than the checkpoint of step 3.
    assert rows[-1].startswith("4,")
    assert not list(killed.glob("cache/*/result.json"))

    again = run(study, images, killed)
    assert watch.steps == [STEPS, STEPS - 3]
    assert numbers(again) == numbers(first)
    for one, other in zip(first.results.runs, again.results.runs, strict=True):
        assert one.training_curve("loss") == other.training_curve("loss")
        assert one.measured_curve("power") == other.measured_curve("power")
        # The time before it was killed is not known.
        assert "cpu_seconds" not in other.numbers
        assert one.training_curve("loss")[0] == list(range(1, STEPS + 1))
        assert other.directory is not None
        # A row for each step, once.
        assert len(other.directory.study_meter.read()) == STEPS


def test_ctrl_c_judges_what_is_finished_and_the_same_command_goes_on(
    study: Study, watch: Watch, images: Path, tmp_path: Path
) -> None:
    def interrupt_the_second() -> None:
        if len(watch.trained) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    watch.act, watch.act_at = interrupt_the_second, 5
    with pytest.raises(KeyboardInterrupt, match="Run the same command again"):
        run(study, images, tmp_path)
    assert "1 of 2 runs" in (tmp_path / "tiny.md").read_text()
    stopped = watch.steps[1]
    assert 5 <= stopped < STEPS
    assert len(run(study, images, tmp_path).results.runs) == 2
    assert watch.steps == [STEPS, stopped, STEPS - stopped]


def test_a_run_that_diverges_is_a_result(
    study: Study, watch: Watch, images: Path, tmp_path: Path
) -> None:
    wild = {"method": "siamese", "optimizer": "sgd", "learning_rate": 1e30, "warmup_epochs": 0.0}
    study = replace(study, variants=(Variant("wild", wild), study.variants[1]))
    report = run(study, images, tmp_path)
    row = report.results.of("wild")[0]
    assert row.diverged is not None
    assert "--learning-rate" in row.diverged
    assert "knn" not in row.numbers
    assert report.results.of("vicreg")[0].diverged is None
    trainings = len(watch.steps)
    again = run(study, images, tmp_path)
    assert len(watch.steps) == trainings
    assert again.results.of("wild")[0].diverged == row.diverged
    page = (tmp_path / "tiny.md").read_text()
    assert "1 run diverged." in page
    assert "| wild | 1 (1 diverged) |  |  |" in page


def test_peak_memory_is_that_of_training_alone(
    study: Study, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Measured once, and of a run that writes no report."""
    study = replace(
        study, variants=(Variant("siamese", {"method": "siamese"}, measure_memory=True),)
    )
    row = run(study, images, tmp_path).results.runs[0]
    assert row.directory is not None
    assert row.numbers["memory_mb"] > 100
    kept = row.directory.path / "memory.json"
    kept.write_text(json.dumps({"memory_mb": 7.0}))
    assert run(study, images, tmp_path).results.runs[0].numbers["memory_mb"] == 7
    # Also of runs that were begun with a report.
    config = row.directory.config_file
    text = config.read_text()
    assert "report: false" in text
    config.write_text(text.replace("report: false", "report: true"))
    capsys.readouterr()
    assert peak_memory(row.directory, str(images)) > 100
    said = [line.split()[0] for line in capsys.readouterr().err.splitlines() if line]
    assert "encoder" in said
    assert "report" not in said


def test_after_a_fault_the_study_goes_on_by_the_same_command(
    study: Study, watch: Watch, images: Path, tmp_path: Path
) -> None:
    def fill_the_disk() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "metrics.csv")

    watch.act, watch.act_at = fill_the_disk, 5
    study = replace(study, variants=study.variants[:1])
    with pytest.raises(NonegError) as caught:
        run(study, images, tmp_path)
    sentence = "metrics.csv: the disk is full; the last checkpoint in .* is whole: make room, then"
    assert re.fullmatch(f"{sentence} the same command again", str(caught.value))
    watch.act = None
    run(study, images, tmp_path)
    assert watch.steps == [5, STEPS - 3]
