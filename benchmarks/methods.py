"""Every method side by side: the same network, the same computing, its small recipe.

    python benchmarks/methods.py --datasets cifar10=CIFAR10 fashion_mnist --cores 0 1 --seeds 0 1 2
    python benchmarks/methods.py --methods lejepa dino --set learning_rate=8e-3 --name slower
    python benchmarks/methods.py --quick        # a few methods on shapes; the last line is JSON

Each method takes as many steps as need the CPU time of `--vicreg-steps` steps of VICReg
(benchmarks/methods_pace.py), so every seed takes the same number, on any machine. Scores are of
images that are held out of the training set; test sets are never read. Each run is a process of its
own on one core. Beside the accuracies: peak memory of the process, images a second, the loss's
share of a step, effective rank and verdict. benchmarks/methods_table.py makes the table.
"""

import argparse
import csv
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from adaptation import score_of
from budget import use_cores
from methods_pace import COMPARED, REFERENCE, pace_of
from methods_table import TABLE, UNTRAINED
from noneg.diagnostics import effective_rank
from noneg.encoder import Encoder
from noneg.evaluation.scores import Score, sample_images, untrained
from noneg.images import Images, find_source, load_images
from noneg.methods import list_methods
from noneg.methods.base import Embeddings
from noneg.training.hardware import cpu_computes_bfloat16
from same_network import SameNetwork
from speedrun import append, data_set, device, given_settings, percent, read_rows
from speedrun_data import Parts, checkout, load_dev
from speedrun_entry import Job, train_steps

COLUMNS = (
    *("date", "commit", "dataset", "method", "name", "settings", "vicreg_steps", "seed"),
    *("steps", "images", "cpu_seconds", "knn", "linear"),
    *("images_per_s", "peak_mib", "loss_share", "effective_rank", "verdict", "device", "status"),
)
QUICK = ("vicreg", "lejepa", "byol", "siamese")

LABELS = 10_000
"""That the probes learn from, as in the speedrun."""

MEASURED = 2_000
"""Images whose representations give the effective rank."""


def one_run(job: Job, parts: Parts, steps: int) -> dict[str, Any]:
    """Train with the method's small recipe and score; the columns that depend on it."""
    import torch

    pixels = np.asarray(parts.train.pixels).transpose(0, 2, 3, 1)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.process_time()
        run = train_steps(job, pixels, steps, [], Path(folder) / "run")
        seconds = time.process_time() - begun
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        with (run.directory / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        verdict = json.loads((run.directory / "verdict.json").read_text())["state"]
    score = score_few(run.encoder, parts, job.seed)
    h = run.encoder.embed_pixels(np.asarray(parts.scored.pixels[:MEASURED]))
    speeds = [float(row["images_per_second"]) for row in rows if row["images_per_second"]]
    return {
        "steps": steps,
        "images": steps * (run.config.batch_size or 0),
        "cpu_seconds": round(seconds, 1),
        "knn": score.knn,
        "linear": score.linear,
        "images_per_s": round(statistics.median(speeds), 1) if speeds else None,
        "peak_mib": round(peak),
        "loss_share": round(loss_share(run.config, parts), 4),
        "effective_rank": round(effective_rank(torch.from_numpy(h)), 1),
        "verdict": verdict,
        "status": "done",
    }


def score_few(encoder: Encoder, parts: Parts, seed: int) -> Score:
    """Both probes, which learn from `LABELS` of the training images."""
    # Twice as fast; features differ by less than half a percent of their size (docs/scaling.md).
    encoder = encoder.in_precision("bfloat16" if cpu_computes_bfloat16() else "float32")
    return score_of(encoder, Parts(sample_images(parts.train, LABELS, seed=seed), parts.scored))


def score_untrained(parts: Parts, seed: int) -> dict[str, Any]:
    """The network that every method begins with."""
    network = SameNetwork(parts.train, seed)
    encoder = untrained(network.encoder(network.build()[0]), seed=seed)
    score = score_few(encoder, parts, seed)
    return {"steps": 0, "images": 0, "knn": score.knn, "linear": score.linear, "status": "done"}


def loss_share(config: Any, parts: Parts, turns: int = 7) -> float:
    """The median time of the objective and its gradient, as a share of that of a whole step."""
    import torch

    from noneg.training.build import build_method, describe_encoder, draw_first_views
    from noneg.training.plan import complete
    from noneg.training.step import compute_gradient

    images = images_of(np.asarray(parts.train.pixels[: config.batch_size]))
    plan = complete(config, find_source(np.asarray(images.pixels).transpose(0, 2, 3, 1)))
    method = build_method(plan)
    info = describe_encoder(method.backbone, plan, images)
    views = draw_first_views(images, plan, info, len(images.pixels))
    index = torch.arange(len(images.pixels))
    whole, loss = [], []
    for _ in range(turns):
        began = time.perf_counter()
        _, e = compute_gradient(method, views, index)
        whole.append(time.perf_counter() - began)
        names = [name for name in ("h", "z", "p", "t") if getattr(e, name) is not None]
        alone = Embeddings(
            **{name: getattr(e, name).detach().requires_grad_() for name in names}, index=index
        )
        began = time.perf_counter()
        torch.autograd.backward(method.objective(alone).value)
        loss.append(time.perf_counter() - began)
    return statistics.median(loss) / statistics.median(whole)


def images_of(pixels: np.ndarray, labels: np.ndarray | None = None) -> Images:
    """Pixels [N, C, S, S] as they are."""
    source = find_source(pixels.transpose(0, 2, 3, 1), labels=labels)
    return load_images(source, channels=pixels.shape[1], size=pixels.shape[2])


def worker(job: Mapping[str, Any]) -> dict[str, Any]:
    """One run in this process."""
    use_cores([job["core"]])
    import torch

    torch.set_num_threads(1)
    with np.load(job["images"]) as stored:
        train, scored = (
            images_of(stored[name], stored[f"{name}_labels"]) for name in ("train", "scored")
        )
    if job["method"] == UNTRAINED:
        return score_untrained(Parts(train, scored), job["seed"])
    described = Job(
        entries=[job["method"]],
        settings={"method": job["method"], **job["settings"]},
        images=job["images"],
        seconds=0,
        cores=[job["core"]],
        seed=job["seed"],
        out="",
    )
    return one_run(described, Parts(train, scored), job["steps"])


def run_all(chosen: argparse.Namespace, out: Path) -> list[dict[str, Any]]:
    """All that is not in the table yet, one process on each core."""
    commit, is_clean = checkout()
    given = given_settings(chosen)
    new = []
    for dataset, place in map(data_set, chosen.datasets):
        parts = load_dev(dataset, place)
        same = {
            "date": time.strftime("%Y-%m-%d"),
            "commit": commit if is_clean else f"{commit}+changes",
            "dataset": dataset,
            "name": chosen.name or "small",
            "settings": json.dumps(given, sort_keys=True),
            "vicreg_steps": str(chosen.vicreg_steps),
            "device": device(),
        }
        with tempfile.TemporaryDirectory() as folder:
            images = f"{folder}/images.npz"
            np.savez(
                images,
                train=np.asarray(parts.train.pixels),
                train_labels=parts.train.labels,
                scored=np.asarray(parts.scored.pixels),
                scored_labels=parts.scored.labels,
            )
            keys = ("dataset", "method", "name", "settings", "vicreg_steps", "seed")
            there = {tuple(row[key] for key in keys) for row in read_rows(out)}
            waiting = [
                {**same, "method": method, "seed": str(seed)}
                for seed in chosen.seeds
                for method in chosen.methods
            ]
            waiting = [row for row in waiting if tuple(row[key] for key in keys) not in there]
            busy: dict[int, tuple[dict[str, Any], Path, subprocess.Popen[bytes]]] = {}
            while waiting or busy:
                for core in chosen.cores:
                    if core not in busy and waiting:
                        row = waiting.pop(0)
                        steps = 0
                        if row["method"] != UNTRAINED:
                            pace = pace_of(row["method"], row["settings"])
                            steps = round(chosen.vicreg_steps / pace)
                        job = {"settings": given, "steps": steps, "core": core}
                        busy[core] = _start(row, {**job, "images": images}, Path(folder))
                for core, (row, result, process) in list(busy.items()):
                    if process.poll() is None:
                        continue
                    del busy[core]
                    row |= _found(result, process.returncode)
                    append(out, row, COLUMNS)
                    new.append(row)
                    knn, linear = (percent([row], name) for name in ("knn", "linear"))
                    print(f"{dataset} {row['method']}: {row['status']} {knn} {linear}", flush=True)
                time.sleep(0.2)
    return new


def _start(
    row: dict[str, Any], job: Mapping[str, Any], folder: Path
) -> tuple[dict[str, Any], Path, subprocess.Popen[bytes]]:
    stem = folder / f"{row['method']}-{row['seed']}"
    described = {**job, "method": row["method"], "seed": int(row["seed"])}
    stem.with_suffix(".job").write_text(json.dumps(described))
    with stem.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, "--job", str(stem.with_suffix(".job"))],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
        )
    return row, stem, process


def _found(stem: Path, code: int) -> dict[str, Any]:
    if code == 0:
        found: dict[str, Any] = json.loads(stem.with_suffix(".row").read_text())
        return found
    said = stem.with_suffix(".log").read_text(errors="replace").strip().splitlines()
    return {"knn": None, "linear": None, "status": f"failed: {said[-1][:200] if said else code}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="+", default=["shapes"], metavar="NAME[=FOLDER]")
    parser.add_argument(
        "--methods", nargs="+", default=[UNTRAINED, *COMPARED], choices=[UNTRAINED, *list_methods()]
    )
    parser.add_argument(
        "--vicreg-steps", type=int, default=400, help=f"computing, in steps of {REFERENCE}"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--cores", nargs="+", type=int, default=[0])
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE")
    parser.add_argument("--name", help="name of the settings that are given with --set")
    parser.add_argument("--out", type=Path, default=TABLE)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.job is not None:
        row = worker(json.loads(chosen.job.read_text()))
        chosen.job.with_suffix(".row").write_text(json.dumps(row))
        return
    if not chosen.quick:
        run_all(chosen, chosen.out)
        return
    chosen.methods, chosen.vicreg_steps = list(QUICK), 60
    with tempfile.TemporaryDirectory() as folder:
        rows = run_all(chosen, Path(folder) / "quick.csv")
    shown = {
        row["method"]: {"knn": row["knn"], "linear": row["linear"], "status": row["status"]}
        for row in rows
    }
    print(json.dumps(shown))


if __name__ == "__main__":
    main()
