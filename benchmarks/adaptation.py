"""Does adapting known weights to unlabeled images help, and can one tell without labels?

Each run begins with the same weights, trains for some minutes on one data set, and is scored beside
its start: accuracies of both, a paired comparison, and all label-free meters of both.

    python benchmarks/adaptation.py --weights lite0.safetensors --datasets aerial=AERIAL \
        --runs vicreg barlow_twins byol simsiam --minutes 5 --seeds 0 1 2 --core 0
    python benchmarks/adaptation.py ... --runs vicreg --set backbone_rate=0.3 --name faster
    python benchmarks/adaptation.py ... --runs scratch distill
    python benchmarks/adaptation.py --judge     # how often each meter would have been right

Scores are of images that are held out of the training set; the test set is only read with
--open-test COMMIT. `--judge` chooses a meter and its threshold on all data sets but one, and
applies them to this one.
"""

import argparse
import csv
import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import noneg
from budget import use_cores
from noneg.diagnostics import METERS
from noneg.evaluation.gain import gain_over, gain_without_labels
from noneg.evaluation.scores import Score, evaluate_features, matched_labels
from noneg.images import Images, images_on_demand
from speedrun import data_set, device, given_settings, percent, read_rows
from speedrun_data import Parts, checkout, choose, find_part, held_out, refuse_unless

TABLE = Path("benchmarks/results/adaptation.csv")
MOST_TRAIN, MOST_SCORED, MOST_TESTED = 2_240, 1_000, 2_000
"""As many images as somebody with a small collection has; those of the aerial photographs."""

MEASURED = 200
"""Images whose views are measured without labels, at 224 pixels."""

SHARE_SCORED = 1 / 3
"""Of a small data set; fewer held-out images would not tell settings apart."""

COLUMNS = (
    *("date", "commit", "dataset", "split", "run", "settings", "minutes", "seed", "steps"),
    *("seconds", "size", "start_knn", "start_linear", "knn", "linear"),
    *("difference", "error", "outcome"),
    *(f"{which}_{meter}" for which in ("start", "trained") for meter in METERS),
    *("device", "status"),
)


def load_parts(name: str, folder: Path | None, size: int, commit: str | None) -> Parts:
    """Images of `size` pixels: to train on, and to score on."""
    source = find_part(name, folder, "train")
    # Only some of them are used.
    images = images_on_demand(source, channels=source.natural_channels(), size=size)
    assert images.labels is not None
    if commit is not None:
        refuse_unless(commit, *checkout())
        test = find_part(name, folder, "test")
        scored = images_on_demand(test, channels=images.pixels.shape[1], size=size)
        return Parts(_some(images, MOST_TRAIN), _some(scored, MOST_TESTED))
    out = held_out(images.labels, most=MOST_SCORED, share=SHARE_SCORED)
    return Parts(*(_some(images, most, where) for where, most in ((~out, MOST_TRAIN), (out, None))))


def _some(images: Images, most: int | None, where: np.ndarray | None = None) -> Images:
    """A random choice, the same every time, of the images or of those that are marked."""
    marked = np.arange(len(images.pixels)) if where is None else np.flatnonzero(where)
    return choose(images, np.sort(np.random.default_rng(0).permutation(marked)[:most]))


def settings_of(run: str, weights: str, backbone: str) -> dict[str, Any]:
    """What `noneg.train` is asked for."""
    if run == "scratch":
        # At the size that `noneg train` takes by itself.
        return {"size": None}
    if run == "distill":
        return {"method": "distill", "size": None}
    return {"method": run, "start": weights, "backbone": backbone}


def one_run(
    run: str,
    given: Mapping[str, Any],
    parts: Parts,
    seed: int,
    chosen: Any,
    starts: dict[str, Score],
) -> dict[str, Any]:
    """Train and score; returns the columns that depend on it.

    Scores of the start are kept in `starts`: they are the same for all runs.
    """
    settings = settings_of(run, chosen.weights, chosen.backbone) | dict(given)
    if run != "scratch" and not starts:
        start = noneg.encoder.load_untouched(
            chosen.weights,
            backbone=chosen.backbone,
            size=chosen.size,
            channels=parts.train.pixels.shape[1],
        )
        starts["start"] = score_of(start, parts)
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        if run == "distill":
            # An encoder of the untouched network, at the size of the images.
            teacher = noneg.encoder.load_untouched(
                chosen.weights, backbone=chosen.backbone, size=chosen.size
            )
            teacher.save(Path(folder) / "teacher")
            options = {"teacher": str(Path(folder) / "teacher")}
            settings["options"] = {**settings.get("options", {}), **options}
        result = noneg.train(
            np.asarray(parts.train.pixels).transpose(0, 2, 3, 1),
            **{"minutes": chosen.minutes, "size": chosen.size, **settings},
            seed=seed,
            report=False,
            out=f"{folder}/run",
        )
        meters = json.loads((result.directory / "meters.json").read_text())
    seconds = time.process_time() - began
    trained = score_of(result.encoder, parts)
    row: dict[str, Any] = {
        "steps": result.config.steps,
        "seconds": round(seconds, 1),
        "size": result.config.size,
        "knn": trained.knn,
        "linear": trained.linear,
        "status": "done",
    }
    if (start_score := starts.get("start")) is not None and run != "scratch":
        gain = gain_over(trained, start_score)
        row |= {"start_knn": start_score.knn, "start_linear": start_score.linear}
        row |= {"outcome": gain.outcome, "difference": gain.difference, "error": gain.error}
    for which in ("start", "trained"):
        for meter, value in (meters.get(which) or {}).get("h", {}).items():
            row[f"{which}_{meter}"] = value
    return row


def score_of(encoder: noneg.Encoder, parts: Parts) -> Score:
    """Both probes, as in `noneg train`: they learn from the training images' labels."""
    learn, test = parts.train, parts.scored
    labels = matched_labels(learn, test)
    embedded = [encoder.embed_pixels(np.asarray(part.pixels)) for part in (learn, test)]
    return evaluate_features("", embedded[0], labels[0], embedded[1], labels[1], seed=0)


def judge(rows: Sequence[Mapping[str, str]]) -> str:
    """How often one could have told without labels, for each data set.

    First the rule of `gain_without_labels`, whose bound on the spread was chosen after looking at
    all these runs; then a rule of the same form, whose two thresholds are chosen on the other data
    sets; then the meter, direction and threshold that are best on the others, of all meters.
    """
    # A student has no start.
    rows = [row for row in rows if row["outcome"] and row["start_std"]]
    lines = [
        "| data set | runs | helped, harmed | right | wrong way | same form | any meter |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in sorted({row["dataset"] for row in rows}):
        own = [row for row in rows if row["dataset"] == name]
        others = [row for row in rows if row["dataset"] != name]
        if not others:
            continue
        pair = max(_pairs(others), key=lambda pair: _right(pair, others))
        meter = max(_rules(others), key=lambda rule: _share_right(rule, others))
        calls = [{_call(row), row["outcome"]} for row in own]
        counts = [sum(row["outcome"] == each for row in own) for each in ("helped", "harmed")]
        cells = (
            name,
            len(own),
            f"{counts[0]}, {counts[1]}",
            f"{sum(len(each) == 1 for each in calls)}",
            sum(each == {"helped", "harmed"} for each in calls),
            _right(pair, own),
            f"{meter[0]}: {round(_share_right(meter, own) * sum(counts))} of {sum(counts)} clear",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _call(row: Mapping[str, str]) -> str:
    meters = [
        {name: float(row[f"{which}_{name}"]) for name in ("view_retrieval", "std")}
        for which in ("trained", "start")
    ]
    gain = gain_without_labels(*meters, MEASURED)
    return "none" if gain is None else gain.outcome


def _pairs(rows: Sequence[Mapping[str, str]]) -> Iterable[tuple[float, float]]:
    """Thresholds on the change of retrieval, and on that of the spread, both as logarithms."""
    found, spread = (
        sorted(abs(_change(row, meter) or 0.0) for row in rows)
        for meter in ("view_retrieval", "std")
    )
    return ((one - 1e-9, two - 1e-9) for one in found for two in spread)


def _right(pair: tuple[float, float], rows: Sequence[Mapping[str, str]]) -> int:
    return sum(_by(pair, row) == row["outcome"] for row in rows)


def _by(pair: tuple[float, float], row: Mapping[str, str]) -> str:
    found, spread = (_change(row, meter) or 0.0 for meter in ("view_retrieval", "std"))
    if abs(spread) > pair[1] or found < -pair[0]:
        return "harmed"
    return "helped" if found > pair[0] else "no difference"


def _rules(rows: Sequence[Mapping[str, str]]) -> Iterable[tuple[str, int, float]]:
    """(meter, direction, threshold on the logarithm of trained over start)."""
    for meter in METERS:
        values = [change for row in rows if (change := _change(row, meter)) is not None]
        if len(values) == len(rows):
            for direction in (1, -1):
                for threshold in (0.0, *values):
                    yield meter, direction, threshold


def _change(row: Mapping[str, str], meter: str) -> float | None:
    try:
        before, after = (float(row[f"{which}_{meter}"]) for which in ("start", "trained"))
    except ValueError:
        return None
    if before <= 0 or after <= 0:
        return None
    return float(np.log(after / before))


def _share_right(rule: tuple[str, int, float], rows: Sequence[Mapping[str, str]]) -> float:
    """Of runs whose outcome is clear with labels: is the call helped or harmed the same?"""
    meter, direction, threshold = rule
    clear = [row for row in rows if row["outcome"] != "no difference"]
    right = 0
    for row in clear:
        change = _change(row, meter)
        called = change is not None and direction * (change - threshold) > 0
        right += called == (row["outcome"] == "helped")
    return right / max(1, len(clear))


def summarize(rows: Sequence[Mapping[str, str]]) -> str:
    """Mean and spread over seeds of each run, as Markdown."""
    groups: dict[tuple[str, ...], list[Mapping[str, str]]] = defaultdict(list)
    for row in rows:
        if row["status"] == "done":
            key = (row["dataset"], row["split"], row["run"], row["minutes"], row["settings"])
            groups[key].append(row)
    lines = ["| data set | run | minutes | n | kNN | linear | start's kNN | linear | outcomes |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for (dataset, split, run, minutes, _), found in groups.items():
        cells = [percent(found, name) for name in ("knn", "linear", "start_knn", "start_linear")]
        outcomes = ", ".join(row["outcome"] for row in found)
        lines.append(
            f"| {dataset} ({split}) | {run} | {minutes} | {len(found)} | {' | '.join(cells)} | "
            f"{outcomes} |"
        )
    return "\n".join(lines)


def append(path: Path, row: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(
            {
                name: f"{value:.5g}" if isinstance(value := row.get(name), float) else value
                for name in COLUMNS
            }
        )


def run_all(chosen: argparse.Namespace) -> None:
    given = given_settings(chosen)
    commit, is_clean = checkout()
    for name, folder in map(data_set, chosen.datasets):
        parts = load_parts(name, folder, chosen.size, chosen.open_test)
        starts: dict[str, Score] = {}
        for seed in chosen.seeds:
            for run in chosen.runs:
                row: dict[str, Any] = {
                    "date": time.strftime("%Y-%m-%d"),
                    "commit": commit if is_clean else f"{commit}+changes",
                    "dataset": name,
                    "split": "dev" if chosen.open_test is None else "test",
                    "run": f"{run}-{chosen.name}" if chosen.name else run,
                    "settings": json.dumps(given, sort_keys=True),
                    "minutes": f"{chosen.minutes:g}",
                    "seed": seed,
                    "device": device(),
                }
                try:
                    row |= one_run(run, given, parts, seed, chosen, starts)
                except noneg.NonegError as error:
                    row["status"] = f"failed: {str(error)[:200]}"
                append(chosen.out, row)
                print(json.dumps({key: row.get(key) for key in COLUMNS[:20]}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", help="as for noneg train --start")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--datasets", nargs="+", default=[], metavar="NAME[=FOLDER]")
    parser.add_argument("--runs", nargs="+", default=["vicreg"], metavar="METHOD")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE")
    parser.add_argument("--name", help="added to the runs' names, for other settings")
    parser.add_argument("--core", type=int, help="keep to this core, with one thread")
    parser.add_argument("--open-test", metavar="COMMIT", help="score on the test sets")
    parser.add_argument("--out", type=Path, default=TABLE)
    parser.add_argument("--judge", action="store_true")
    parser.add_argument("--table", action="store_true")
    chosen = parser.parse_args()
    if chosen.judge or chosen.table:
        rows = read_rows(chosen.out)
        print(judge(rows) if chosen.judge else summarize(rows))
        return
    if chosen.weights is None:
        raise SystemExit("--weights: a file, or timm:NAME")
    if chosen.core is not None:
        use_cores([chosen.core])
        os.environ["OMP_NUM_THREADS"] = "1"
        import torch

        torch.set_num_threads(1)
    run_all(chosen)


if __name__ == "__main__":
    main()
