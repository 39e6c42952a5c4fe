"""An encoder in two, ten and sixty minutes: what is it worth, beside everything cheap?

The protocol is docs/speedrun.md. One recipe for all data sets; a budget of CPU seconds on one core
(--budget 120 600), or of wall time on several (--budget 3600 --cores-per-entry 2). Scores are of
images held out of the training set. The test set is only opened with --open-test COMMIT.
A data set is a name that noneg knows, or NAME=FOLDER with train/ and test/, or with IDX files.
Everything that was tried is a row of the table; rows that are there already are skipped.

    python benchmarks/speedrun.py --datasets cifar10=CIFAR10 fashion_mnist shapes aerial=AERIAL \
        --budget 120 600 --seeds 0 1 2 --cores 0 1
    python benchmarks/speedrun.py --datasets shapes --entries noneg --name wide --set batch_size=128
    python benchmarks/speedrun.py --table
    python benchmarks/speedrun.py --quick --datasets cifar10=CIFAR10
"""

import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from budget import TOLERANCE
from lightly_side import settings_of
from noneg.images import find_source
from noneg.networks.backbones import SMALL_RESNET
from noneg.training.config import TrainConfig, make_config, to_dict
from noneg.training.plan import choose_batch_size, complete
from speedrun_data import TABLE, Parts, checkout, load_dev, open_test
from speedrun_entry import BASELINES, Job
from supervised import SETTINGS as SUPERVISED

COLUMNS = (
    *("date", "commit", "dataset", "split", "entry", "settings", "budget_s", "cores", "seed"),
    *("cpu_seconds", "images_seen", "knn", "knn_raw", "linear", "accuracy", "dimensions"),
    *("device", "status"),
)
KEY = ("dataset", "split", "entry", "settings", "budget_s", "cores", "seed")
ENTRIES = ("noneg", "lightly", "previous", "lightly_ours", "supervised", *BASELINES)

PREVIOUS: dict[str, Any] = {
    "method": "vicreg",
    "options": {"invariance": 25.0, "variance": 25.0, "covariance": 1.0, "projector": [1024, 1024]},
    "backbone": SMALL_RESNET,
    "norm": "batch",
    "optimizer": "adamw",
    "learning_rate": 3e-3,
    "weight_decay": 1e-4,
    "bias_rate": 1.0,
    "warmup_epochs": 1.0,
    "views": [{"crop_scale": [0.3, 1.0], "saturation": 0.2}] * 2,
}
"""What `noneg train` did in version 0.1.0, whatever it does now."""

# They decide no number of a run, or are decided by the protocol or by the images.
_NO_SETTINGS = {
    *("data", "out", "eval_data", "size", "channels", "strict", "cache", "epochs", "steps"),
    *("minutes", "continue_from", "first_epoch", "seed", "accelerator", "devices", "num_nodes"),
    *("strategy", "evaluate", "evaluation_images", "knn_every", "log_every", "logger"),
    *("checkpoint_every", "report"),
}
# They are recorded even where they have the class's default.
_ALWAYS = {
    *("method", "backbone", "batch_size", "optimizer", "learning_rate", "weight_decay", "views"),
}


def settings_for(entry: str, parts: Parts, given: Mapping[str, Any]) -> dict[str, Any]:
    """All that decides the numbers of an entry besides data, budget, cores and seed.

    Args:
        entry: one of `ENTRIES`, or the name of a run of noneg with settings of its own.
        parts: the images; they decide the batch size, and what the backbone "auto" is.
        given: settings of --set; entries that are not noneg's only use the backbone.
    """
    pixels = np.asarray(parts.train.pixels).transpose(0, 2, 3, 1)
    asked = dict(given)
    if entry == "previous":
        asked = {**PREVIOUS, "batch_size": choose_batch_size(len(pixels), 256)}
    config = complete(make_config(pixels, **asked), find_source(pixels)).config
    if entry in ("untrained", "pixels", "patches"):
        # Pixels and patches do not depend on it, but one process scores all baselines.
        return {"backbone": config.backbone}
    if entry == "supervised":
        return {"backbone": config.backbone, **SUPERVISED}
    if entry.startswith("lightly"):
        recipe = "ours" if entry == "lightly_ours" else "documented"
        asked = settings_of(recipe, len(pixels))
        return {"backbone": config.backbone, "lightly": version("lightly"), **asked}
    defaults = {field.name: field.default for field in fields(TrainConfig)}
    return {
        name: value
        for name, value in to_dict(config).items()
        if name not in _NO_SETTINGS and (name in _ALWAYS or value != defaults[name])
    }


def is_there(row: Mapping[str, Any], rows: Iterable[Mapping[str, str]]) -> bool:
    """Whether this configuration was tried already; what failed is tried again.

    Test scores are of a commit: those of another one do not count.
    """
    key = [*KEY, "commit"] if row["split"] == "test" else KEY
    return any(
        all(other[name] == str(row[name]) for name in key)
        and not other["status"].startswith("failed")
        for other in rows
    )


def place(count: int, groups: int, turn: int) -> list[list[tuple[int, int]]]:
    """Rounds of (job, group of cores): jobs of a round run at the same time.

    From one seed to the next the sides swap their cores: what is wrong with a core hits both.

    Args:
        count: number of jobs.
        groups: number of groups of cores.
        turn: 0 for the first seed, 1 for the second ...
    """
    return [
        [(job, (job + turn) % groups) for job in range(first, min(first + groups, count))]
        for first in range(0, count, groups)
    ]


def read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append(path: Path, row: Mapping[str, Any], columns: Sequence[str] = COLUMNS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow({name: _cell(row.get(name)) for name in columns})


def _cell(value: Any) -> Any:
    return f"{value:.4f}" if isinstance(value, float) and value <= 1 else value


def summarize(rows: Sequence[Mapping[str, str]]) -> str:
    """Mean, spread (standard deviation over seeds) and n of each entry, as Markdown.

    Rows of one name with different settings are different lines. Only rows that are done count;
    the others are counted behind n.
    """
    tables: dict[tuple[str, str], dict[tuple[str, ...], list[Mapping[str, str]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for row in rows:
        line = row["budget_s"], row["cores"], row["entry"], row["settings"]
        tables[row["dataset"], row["split"]][line].append(row)
    text = []
    for (dataset, split), lines in tables.items():
        text.append(f"### {dataset}, {'held-out' if split == 'dev' else 'test'} images\n")
        text.append("| entry | budget, s | cores | n | kNN | raw kNN | linear | CPU s | commit |")
        text.append("|---|---|---|---|---|---|---|---|---|")
        for (budget, cores, entry, _), found in sorted(
            lines.items(), key=lambda item: (float(item[0][0]), int(item[0][1]))
        ):
            done = [row for row in found if row["status"] == "done"]
            others = f" (+{len(found) - len(done)} not done)" if len(done) < len(found) else ""
            cells = [
                entry,
                f"{float(budget):g}",
                cores,
                f"{len(done)}{others}",
                *(percent(done, name) for name in ("knn", "knn_raw", "linear")),
                _mean(done, "cpu_seconds"),
                found[-1]["commit"][:10],
            ]
            text.append(f"| {' | '.join(cells)} |")
        text.append("")
    return "\n".join(text)


def percent(rows: Sequence[Mapping[str, str]], name: str) -> str:
    values = [100 * float(row[name]) for row in rows if row[name]]
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def _mean(rows: Sequence[Mapping[str, str]], name: str) -> str:
    values = [float(row[name]) for row in rows if row[name]]
    return f"{statistics.mean(values):.0f}" if values else ""


def run_jobs(
    jobs: Sequence[tuple[list[str], dict[str, Any]]],
    images: Path,
    seconds: float,
    groups: Sequence[Sequence[int]],
    seed: int,
    turn: int,
) -> Iterable[dict[str, Any]]:
    """Run entries, one process each, as many at a time as there are groups of cores."""
    for round_ in place(len(jobs), len(groups), turn):
        with tempfile.TemporaryDirectory() as folder:
            started = [
                _start(
                    Job(
                        entries=jobs[number][0],
                        settings=jobs[number][1],
                        images=str(images),
                        seconds=seconds,
                        cores=list(groups[group]),
                        seed=seed,
                        out=str(Path(folder) / f"{number}.json"),
                    ),
                    Path(folder) / f"{number}",
                )
                for number, group in round_
            ]
            for job, process, log in started:
                process.wait()
                if process.returncode == 0:
                    yield from json.loads(Path(job.out).read_text(encoding="utf-8"))
                    continue
                said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                reason = said[-1] if said else f"exit status {process.returncode}"
                for entry in job.entries:
                    yield {"entry": entry, "status": f"failed: {reason[:200]}"}


def _start(job: Job, stem: Path) -> tuple[Job, subprocess.Popen[bytes], Path]:
    described, log = stem.with_suffix(".job"), stem.with_suffix(".log")
    described.write_text(json.dumps(asdict(job)), encoding="utf-8")
    threads = str(len(job.cores))
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("speedrun_entry.py")), str(described)],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "OMP_NUM_THREADS": threads,
                "MKL_NUM_THREADS": threads,
                "OPENBLAS_NUM_THREADS": threads,
                "OMP_WAIT_POLICY": "PASSIVE",
            },
        )
    return job, process, log


def run_all(chosen: argparse.Namespace, out: Path) -> list[dict[str, Any]]:
    """Everything that was asked for and is not there; returns the new rows."""
    entries, given = _entries(chosen), given_settings(chosen)
    groups = _groups(chosen.cores, chosen.cores_per_entry)
    commit, is_clean = checkout()
    same = {
        "commit": commit if is_clean else f"{commit}+changes",
        "split": "dev" if chosen.open_test is None else "test",
        "cores": chosen.cores_per_entry,
        "device": device(),
    }
    new: list[dict[str, Any]] = []
    for name, folder in map(data_set, chosen.datasets):
        if chosen.open_test is None:
            parts = load_dev(name, folder)
        else:
            parts = open_test(name, folder, chosen.open_test)
        print(f"{name}: {len(parts.train.pixels)} images, scored on {len(parts.scored.pixels)}")
        settings = {entry: settings_for(entry, parts, given) for entry in entries}
        with tempfile.TemporaryDirectory() as temporary:
            images = Path(temporary) / "images.npz"
            _write(images, parts)
            for turn, seed in enumerate(chosen.seeds):
                for seconds in chosen.budget:
                    rows = _rows_of({**same, "dataset": name, "seed": seed}, settings, seconds)
                    there = read_rows(out)
                    missing = [entry for entry in entries if not is_there(rows[entry], there)]
                    jobs = _jobs(missing, settings)
                    for found in run_jobs(jobs, images, seconds, groups, seed, turn):
                        row = rows[found["entry"]] | found
                        if over_budget(row):
                            row["status"] = f"over budget: {row['cpu_seconds']} CPU seconds"
                        append(out, row)
                        new.append(row)
                        _say(row)
    return new


def _rows_of(
    same: Mapping[str, Any], settings: Mapping[str, dict[str, Any]], seconds: float
) -> dict[str, dict[str, Any]]:
    """The row of each entry, as far as it is known before."""
    return {
        entry: {
            **same,
            "date": time.strftime("%Y-%m-%d"),
            "entry": entry,
            "settings": json.dumps(decided, sort_keys=True),
            # Baselines are not trained: they are the same in every budget.
            "budget_s": "0" if entry in BASELINES else f"{seconds:g}",
        }
        for entry, decided in settings.items()
    }


def _say(row: Mapping[str, Any]) -> None:
    scores = "".join(
        f", {probe} {100 * row[probe]:.1f}" for probe in ("knn", "linear") if row.get(probe)
    )
    print(f"  {row['entry']}, seed {row['seed']}: {row['status']}{scores}", flush=True)


def over_budget(row: Mapping[str, Any]) -> bool:
    """Whether a run took clearly more CPU time than its cores had in its budget."""
    seconds, budget = row.get("cpu_seconds"), float(row["budget_s"])
    return seconds is not None and budget > 0 and seconds > TOLERANCE * row["cores"] * budget


def _jobs(
    missing: Sequence[str], settings: Mapping[str, dict[str, Any]]
) -> list[tuple[list[str], dict[str, Any]]]:
    jobs = [([entry], settings[entry]) for entry in missing if entry not in BASELINES]
    if baselines := [entry for entry in missing if entry in BASELINES]:
        jobs.append((baselines, settings[baselines[0]]))
    return jobs


def device() -> str:
    """The model of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields_ = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {name.strip(): value.strip() for name, value in fields_.items()}
    model = named.get("model name", platform.machine())
    # Clouds name all of a family's CPUs alike.
    return f"{model} (family {named.get('cpu family', '?')}, model {named.get('model', '?')})"


def _write(path: Path, parts: Parts) -> None:
    arrays = {}
    for name in ("train", "scored"):
        images = getattr(parts, name)
        arrays[name], arrays[f"{name}_labels"] = np.asarray(images.pixels), images.labels
    np.savez(path, **arrays)


def data_set(text: str) -> tuple[str, Path | None]:
    name, _, folder = text.partition("=")
    return name, Path(folder) if folder else None


def given_settings(chosen: argparse.Namespace) -> dict[str, Any]:
    given = {}
    for each in chosen.set:
        name, equals, value = each.partition("=")
        if not equals:
            raise SystemExit(f"--set wants NAME=VALUE, not {each}")
        try:
            given[name] = json.loads(value)
        except ValueError:
            given[name] = value
    return given


def _entries(chosen: argparse.Namespace) -> list[str]:
    entries = [chosen.name or each if each == "noneg" else each for each in chosen.entries]
    if chosen.set and chosen.name is None:
        raise SystemExit("--set is another recipe: give it a --name")
    if chosen.name in ENTRIES and chosen.name != "noneg":
        raise SystemExit(f"--name {chosen.name} is the name of another entry: choose another one")
    if find_spec("lightly") is None and any(each.startswith("lightly") for each in entries):
        raise SystemExit("lightly not found: pip install 'noneg[bench]', or leave out its entries")
    return entries


def _groups(cores: Sequence[int], size: int) -> list[list[int]]:
    groups = [list(cores[first : first + size]) for first in range(0, len(cores), size)]
    if len(groups[-1]) < size:
        raise SystemExit(f"--cores lists {len(cores)}, not a multiple of {size} cores per entry")
    return groups


def _usable_cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def quick(chosen: argparse.Namespace) -> None:
    """Two runs of noneg and the baselines on one data set, with one JSON line at the end."""
    chosen.seeds, chosen.entries = [0], ["noneg", "previous", *BASELINES]
    chosen.datasets, chosen.budget = chosen.datasets[:1], chosen.budget[:1]
    with tempfile.TemporaryDirectory() as folder:
        rows = run_all(chosen, chosen.out or Path(folder) / "quick.csv")
    shown = {row["entry"]: row for row in rows}
    names = ("noneg", "patches", "pixels", "previous")
    print(
        json.dumps(
            {
                "budget_s": chosen.budget[0],
                **{
                    probe: {name: shown.get(name, {}).get(probe) for name in names}
                    for probe in ("knn", "linear")
                },
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="+", default=["shapes"], metavar="NAME[=FOLDER]")
    parser.add_argument("--entries", nargs="+", default=list(ENTRIES), choices=ENTRIES)
    parser.add_argument("--budget", nargs="+", type=float, help="seconds; default: 120, quick: 40")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--cores", nargs="+", type=int, help="default: one; quick: at most two")
    parser.add_argument("--cores-per-entry", type=int, default=1)
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE")
    parser.add_argument("--name", help="name of the entry whose settings are given with --set")
    parser.add_argument("--open-test", metavar="COMMIT", help="score on the test sets")
    parser.add_argument("--out", type=Path, help=f"default: {TABLE}; quick: none")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--table", action="store_true", help="only print the table's summary")
    chosen = parser.parse_args()
    if chosen.table:
        print(summarize(read_rows(chosen.out or TABLE)))
        return
    at_once = chosen.cores_per_entry * (2 if chosen.quick else 1)
    chosen.cores = chosen.cores or _usable_cores()[:at_once]
    chosen.budget = chosen.budget or [40.0 if chosen.quick else 120.0]
    if chosen.quick:
        quick(chosen)
    else:
        run_all(chosen, chosen.out or TABLE)


if __name__ == "__main__":
    main()
