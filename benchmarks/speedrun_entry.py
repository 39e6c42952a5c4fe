"""One entry of the speedrun, in a process of its own: benchmarks/speedrun.py starts it.

The argument is a JSON file with the fields of `Job`. Rows are written to `out`, as JSON.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from budget import TIMED_STEPS, Budget, steps_that_fit, use_cores
from noneg.encoder import Encoder
from noneg.errors import DivergedError
from noneg.evaluation.scores import (
    Score,
    compare,
    evaluate_features,
    matched_labels,
    sample_images,
    untrained,
)
from noneg.images import Images, find_source, load_images
from noneg.methods.base import Embeddings, Method
from noneg.training.config import make_config
from noneg.training.loop import Observer
from noneg.training.run import Run, start
from same_network import SameNetwork
from speedrun_data import Parts

MOST_NUMBERS = 512
BASELINES = ("untrained", "patches", "pixels")

Row = dict[str, Any]


@final
@dataclass(frozen=True)
class Job:
    """What one process does.

    Attributes:
        entries: one entry; or several of `BASELINES`, which are scored together.
        settings: of `noneg.train` for noneg, else of the entry itself.
        images: a .npz file with train, train_labels, scored and scored_labels.
        seconds: the budget; 0 for baselines.
        cores: the cores of this process.
        seed: of weights, views and choices.
        out: the file for the rows.
    """

    entries: list[str]
    settings: dict[str, Any]
    images: str
    seconds: float
    cores: list[int]
    seed: int
    out: str

    @property
    def budget(self) -> Budget:
        """The budget, of CPU time if there is one core."""
        return Budget(self.seconds, len(self.cores))


def run_noneg(job: Job, parts: Parts) -> list[Row]:
    """Train with `noneg.train`'s settings, for as many steps as fit, and score the encoder."""
    pixels = np.asarray(parts.train.pixels).transpose(0, 2, 3, 1)
    batch_size = job.settings["batch_size"]
    order = np.random.default_rng(job.seed).permutation(len(pixels))
    with tempfile.TemporaryDirectory() as folder:
        budget, ticks = job.budget, Ticks(job.budget)
        begun = budget.clock()
        few = pixels[order[: batch_size * TIMED_STEPS]]
        train_steps(job, few, len(few) // batch_size, [ticks], Path(folder) / "timed")
        steps = steps_that_fit(budget.seconds, begun, ticks.times, budget.clock())
        begun = time.process_time()
        run = train_steps(job, pixels[order], steps, [], Path(folder) / "run")
        seconds = time.process_time() - begun
    return [_row(job.entries[0], _score(run.encoder, parts, job), seconds, steps * batch_size)]


def train_steps(
    job: Job, pixels: np.ndarray, steps: int, observers: list[Observer], out: Path
) -> Run:
    """A run of this many steps, without scores and report."""
    config = make_config(
        pixels,
        **job.settings,
        steps=steps,
        seed=job.seed,
        accelerator="cpu",
        evaluate=False,
        report=False,
        out=str(out),
    )
    return start(config, pixels, observers=observers)


@final
class Ticks(Observer):
    """The clock of the budget after each step."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.times: list[float] = []

    def begin(self, step: int, total_steps: int) -> None:
        """A timed run starts at step 0."""

    def observe(self, step: int, epoch: int, method: Method, embeddings: Embeddings) -> None:
        """Read the clock."""
        self.times.append(self.budget.clock())


def run_supervised(job: Job, parts: Parts) -> list[Row]:
    """Train the same network with labels: the ceiling."""
    from supervised import score, train_supervised

    network = SameNetwork(parts.train, job.seed, backbone=job.settings["backbone"])
    result = train_supervised(network, job.budget, job.settings)
    scores = score(result, parts, job.seed)
    row = _row("supervised", scores, result.seconds, result.steps * job.settings["batch_size"])
    return [row | {"accuracy": scores["accuracy"]}]


def run_lightly(job: Job, parts: Parts) -> list[Row]:
    """Train the same network with lightly."""
    from lightly_side import train_with_lightly

    parts = Parts(_in_color(parts.train), _in_color(parts.scored))
    network = SameNetwork(parts.train, job.seed, backbone=job.settings["backbone"])
    result = train_with_lightly(network, job.budget, job.settings["recipe"])
    scores = _score(result.encoder, parts, job)
    return [_row(job.entries[0], scores, result.seconds, result.steps * result.batch_size)]


def run_baselines(job: Job, parts: Parts) -> list[Row]:
    """The baselines that noneg's own comparison has, as far as they are asked for."""
    network = SameNetwork(parts.train, job.seed, backbone=job.settings["backbone"])
    encoder = untrained(network.encoder(network.build()[0]), seed=job.seed)
    scores = compare(encoder, encoder, parts.train, parts.scored, seed=job.seed)
    found = {score.features: score for score in scores}
    return [_row(name, vars(found[name]), None, 0) for name in job.entries if name in found]


def _in_color(images: Images) -> Images:
    pixels = np.asarray(images.pixels)
    return replace(images, pixels=np.repeat(pixels, 3, axis=1)) if pixels.shape[1] == 1 else images


def _score(encoder: Encoder, parts: Parts, job: Job) -> Mapping[str, Any]:
    """Noneg's probes on one view of each image, with 10,000 labels."""
    bank, scored = (
        sample_images(part, 10_000, seed=job.seed) for part in (parts.train, parts.scored)
    )
    features = [encoder.embed_pixels(np.asarray(part.pixels)) for part in (bank, scored)]
    bank_labels, labels = matched_labels(bank, scored)
    score: Score = evaluate_features(
        job.entries[0], features[0], bank_labels, features[1], labels, seed=job.seed
    )
    return vars(score)


def _row(entry: str, score: Mapping[str, Any], seconds: float | None, seen: int) -> Row:
    return {
        "entry": entry,
        "cpu_seconds": None if seconds is None else round(seconds, 1),
        "images_seen": seen,
        **{name: score.get(name) for name in ("knn", "knn_raw", "linear", "dimensions")},
        "status": "done",
    }


RUNNERS: dict[str, Callable[[Job, Parts], list[Row]]] = {
    "supervised": run_supervised,
    "lightly": run_lightly,
    "lightly_ours": run_lightly,
    **dict.fromkeys(BASELINES, run_baselines),
}
"""Every other entry is a run of noneg."""


def main() -> None:
    job = Job(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    use_cores(job.cores)
    torch.set_num_threads(len(job.cores))
    with np.load(job.images) as file:
        parts = Parts(
            *(
                load_images(
                    find_source(file[name].transpose(0, 2, 3, 1), labels=file[f"{name}_labels"]),
                    channels=file[name].shape[1],
                    size=file[name].shape[2],
                )
                for name in ("train", "scored")
            )
        )
    try:
        rows = RUNNERS.get(job.entries[0], run_noneg)(job, parts)
    except DivergedError as error:
        rows = [{"entry": job.entries[0], "status": f"diverged: {error}"}]
    for row in rows:
        if (row.get("dimensions") or 0) > MOST_NUMBERS and row["entry"] not in BASELINES:
            row["status"] = f"refused: {row['dimensions']} numbers, more than {MOST_NUMBERS}"
    Path(job.out).write_text(json.dumps(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
