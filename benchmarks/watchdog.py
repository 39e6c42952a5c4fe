"""Do the watchdog's verdicts agree with labels? Short runs, sound and broken, with all meters.

The metrics of all runs go into one table, and their scores into another. `--judge` reads both and
prints each verdict, the step of the first alarm, and how well each meter ranks the runs. Runs that
are in the tables already are skipped.

    python benchmarks/watchdog.py CIFAR10/train CIFAR10/test    about 90 seconds per run
    python benchmarks/watchdog.py --judge
"""

import argparse
import csv
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

import noneg
from noneg.diagnostics import METERS, judge, judge_end
from noneg.errors import NonegError
from noneg.evaluation.label_free import IMAGES as IMAGES_MEASURED
from noneg.evaluation.label_free import embed_with, measure_embeddings
from noneg.images import find_source
from noneg.images.shapes import draw_shapes
from noneg.records.directory import RunDirectory
from noneg.training.build import build_method
from noneg.training.config import make_config
from noneg.training.data import load_for_training, measure_normalization
from noneg.training.plan import complete

RESULTS = Path("benchmarks/results")
RUNS, ROWS = RESULTS / "watchdog_runs.csv", RESULTS / "watchdog_rows.csv"
STARTS = RESULTS / "watchdog_starts.csv"
DATA, PROBES = ("shapes", "cifar10"), ("knn", "linear")
IMAGES, TEST_IMAGES, BATCH, EPOCHS = 4_000, 2_000, 64, 6
# CIFAR-10 is halved to keep runs short; the outlines of shapes need all pixels.
SIZES = {"cifar10": 16, "shapes": 32}

SOUND: dict[str, dict[str, Any]] = {
    name: {"method": name} for name in ("vicreg", "barlow_twins", "byol", "simsiam")
}
BROKEN: dict[str, dict[str, Any]] = {
    "siamese": {"method": "siamese"},
    "byol, no predictor": {"method": "byol", "options": {"predictor": "none"}},
    "byol, no stop-gradient": {"method": "byol", "options": {"stop_gradient": False}},
    "byol, frozen target": {"method": "byol", "options": {"target": "frozen"}},
    "byol, fixed predictor": {"method": "byol", "options": {"predictor": "fixed"}},
    "byol, target a copy": {
        "method": "byol",
        "options": {"target": "copy", "predictor_rate": 1.0},
    },
    "byol, rate x 30": {"method": "byol", "learning_rate": 0.09},
    "byol, rate / 100": {"method": "byol", "learning_rate": 3e-5},
    "simsiam, no predictor": {"method": "simsiam", "options": {"predictor": "none"}},
    "simsiam, no stop-gradient": {"method": "simsiam", "options": {"stop_gradient": False}},
    "simsiam, rate x 30": {"method": "simsiam", "learning_rate": 0.09},
    "simsiam, rate / 100": {"method": "simsiam", "learning_rate": 3e-5},
    "vicreg, no variance": {"method": "vicreg", "options": {"variance": 0.0}},
    "vicreg, no covariance": {"method": "vicreg", "options": {"covariance": 0.0}},
    "vicreg, no invariance": {"method": "vicreg", "options": {"invariance": 0.0}},
    "vicreg, little variance": {"method": "vicreg", "options": {"variance": 1.0}},
    "vicreg, rate x 30": {"method": "vicreg", "learning_rate": 0.09},
    "vicreg, rate x 300": {"method": "vicreg", "learning_rate": 0.9},
    "vicreg, rate / 100": {"method": "vicreg", "learning_rate": 3e-5},
    "vicreg, weak views": {"method": "vicreg", "views": "weak"},
    "barlow_twins, no redundancy": {"method": "barlow_twins", "options": {"redundancy": 0.0}},
    "barlow_twins, no invariance": {"method": "barlow_twins", "options": {"invariance": 0.0}},
    "barlow_twins, rate x 30": {"method": "barlow_twins", "learning_rate": 0.09},
    "vicreg, sgd x 100": {"method": "vicreg", "optimizer": "sgd", "learning_rate": 1.0},
}
"""The settings that differ from a sound run. The labels decide whether a run is broken."""
OTHERS: dict[str, dict[str, Any]] = {
    f"{name}, group norm": {"method": name, "norm": "group"} for name in ("vicreg", "byol")
}
"""Networks whose embeddings have nearly the same direction before training."""

ON_SHAPES = ("vicreg", "byol", "siamese", "byol, no stop-gradient")


def list_runs() -> list[tuple[str, str, int]]:
    """(data, variant, seed), the most informative first."""
    sound = [("cifar10", name, seed) for seed in (0, 1) for name in SOUND]
    broken = [("cifar10", name, 0) for name in BROKEN]
    others = [("cifar10", name, 0) for name in OTHERS]
    drawn = [("shapes", name, 0) for name in ON_SHAPES]
    return sound + broken + others + drawn + [("cifar10", name, 2) for name in SOUND]


def some(folder: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    source = find_source(folder)
    assert source.labels is not None
    chosen = np.sort(np.random.default_rng(0).permutation(len(source))[:count])
    pixels = np.stack([source.read(int(index), 3, 32) for index in chosen])
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)), source.labels[chosen]


def load(train: Path, test: Path) -> dict[str, tuple[np.ndarray, ...]]:
    drawn = [draw_shapes(IMAGES, seed=0), draw_shapes(TEST_IMAGES, seed=1)]
    shapes = [(each.pixels.transpose(0, 2, 3, 1), each.labels) for each in drawn]
    return {
        "shapes": (*shapes[0], *shapes[1]),
        "cifar10": (*some(train, IMAGES), *some(test, TEST_IMAGES)),
    }


def norm_of(variant: str) -> str:
    return "group" if variant.endswith("group norm") else "batch"


def measure_starts(images: dict[str, tuple[np.ndarray, ...]]) -> None:
    """Append the meters of the untrained encoders, which are the same for all methods."""
    known = {(row["data"], row["layers"], row["seed"]) for row in read(STARTS)}
    for data, variant, seed in list_runs():
        key = (data, norm_of(variant), str(seed))
        if key in known:
            continue
        known.add(key)
        source = find_source(images[data][0])
        views = "outline" if data == "shapes" else "gentle"
        config = make_config(
            images[data][0], norm=key[1], size=SIZES[data], seed=seed, views=views, batch_size=BATCH
        )
        plan = complete(config, source)
        with tempfile.TemporaryDirectory() as folder:
            loaded = load_for_training(source, plan, RunDirectory(Path(folder)))
        mean, std = measure_normalization(loaded.pixels)
        method = build_method(plan)
        meters = measure_embeddings(
            method,
            embed_with(method),
            loaded,
            plan.policy,
            size=plan.size,
            mean=mean,
            std=std,
            seed=seed,
        )["h"]
        row = dict(zip(("data", "layers", "seed"), key, strict=True))
        row |= {name: f"{value:.6g}" for name, value in meters.items()}
        append(STARTS, [row], list(row))


def append(path: Path, rows: list[dict[str, Any]], columns: list[str]) -> None:
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
        if is_new:
            writer.writeheader()
        writer.writerows(rows)


def read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run_one(data: str, variant: str, seed: int, images: tuple[np.ndarray, ...]) -> None:
    settings = {**SOUND, **BROKEN, **OTHERS}[variant]
    views = settings.get("views", "outline" if data == "shapes" else "gentle")
    key = {"data": data, "variant": variant, "seed": seed}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        ended, scores = "done", {}
        try:
            run = noneg.train(
                images[0],
                labels=images[1],
                eval_data=images[2],
                eval_labels=images[3],
                out=str(out),
                seed=seed,
                size=SIZES[data],
                batch_size=BATCH,
                epochs=EPOCHS,
                evaluation_images=2_000,
                report=False,
                **{**settings, "views": views},
            )
            scores = {
                f"{score.features}_{probe}": f"{getattr(score, probe):.4f}"
                for score in run.scores
                for probe in ("knn", "linear")
            }
        except NonegError as error:
            ended = str(error)
        meters = out / "meters.json"
        after = json.loads(meters.read_text()) if meters.exists() else {}
        final = {
            f"{name}_{embedding}": f"{value:.6g}"
            for embedding, values in after.get("trained", {}).items()
            for name, value in values.items()
            if value is not None
        }
        rows = read(out / "metrics.csv")
    seconds = f"{time.perf_counter() - started:.0f}"
    row = {**key, "ended": ended, **scores, "seconds": seconds, **final}
    runs = read(RUNS)
    columns = list(runs[0]) if runs else list(row)
    append(RUNS, [row], columns)
    known = read(ROWS)
    append(
        ROWS, [{**key, **each} for each in rows], list(known[0]) if known else columns_of(rows[0])
    )
    print(data, variant, seed, ended, scores, seconds, flush=True)


def columns_of(row: dict[str, str]) -> list[str]:
    """The columns that all methods have: without the terms of the loss."""
    names = list(row)
    kept = names[: names.index("loss") + 1] + names[names.index("learning_rate") :]
    return ["data", "variant", "seed", *kept]


def outcome(run: dict[str, str]) -> str:
    """What the labels say about a run, compared with the untrained encoder."""
    if run["ended"] != "done":
        return "stopped itself"
    gains = [float(run[f"trained_{probe}"]) - float(run[f"untrained_{probe}"]) for probe in PROBES]
    # About two standard errors of the mean gain with 2,000 test images.
    return "worked" if sum(gains) / 2 > 0.02 else "failed"


def onset(rows: list[dict[str, float]], meter: str) -> int | None:
    """The first step from which a meter stays below the middle of its fall, on a log scale."""
    values = np.array([max(row[meter], 1e-6) for row in rows if meter in row])
    steps = [int(row["step"]) for row in rows if meter in row]
    logs = np.log(values)
    top, bottom = logs.max(), logs[-1]
    if top - bottom < np.log(2):
        return None
    above = np.flatnonzero(logs > (top + bottom) / 2)
    return steps[above[-1] + 1]


def histories() -> dict[tuple[str, str, str], list[dict[str, float]]]:
    found: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    for row in read(ROWS):
        key = (row.pop("data"), row.pop("variant"), row.pop("seed"))
        found.setdefault(key, []).append(
            {name: float(value) for name, value in row.items() if value not in ("", None)}
        )
    return found


def judge_all() -> list[dict[str, Any]]:
    """The verdict on each run, the step of its first alarm, and what the labels say."""
    table = []
    rows_of = histories()
    starts = {
        (row["data"], row["layers"], row["seed"]): float(row["view_retrieval"])
        for row in read(STARTS)
    }
    for run in read(RUNS):
        rows = rows_of[run["data"], run["variant"], run["seed"]]
        total = IMAGES // BATCH * EPOCHS
        verdicts = [judge(rows[: end + 1], total) for end in range(len(rows))]
        if run["ended"] == "done":
            start = {"view_retrieval": starts[run["data"], norm_of(run["variant"]), run["seed"]]}
            end = {"view_retrieval": float(run["view_retrieval_h"])}
            verdicts[-1] = judge_end(verdicts[-1], end, start, searches=3 * IMAGES_MEASURED)
        alarms = [
            (int(row["step"]), verdict.state)
            for row, verdict in zip(rows, verdicts, strict=True)
            if verdict.is_alarm
        ]
        acts = [
            int(row["step"])
            for row, verdict in zip(rows, verdicts, strict=True)
            if verdict.needs_action
        ]
        began = min(
            (
                step
                for meter in ("std_h", "std_z", "participation_ratio_z", "participation_ratio_h")
                if (step := onset(rows, meter)) is not None
            ),
            default=None,
        )
        table.append(
            {
                "data": run["data"],
                "variant": run["variant"],
                "seed": run["seed"],
                "labels": outcome(run),
                "knn": run["trained_knn"],
                "untrained_knn": run["untrained_knn"],
                "linear": run["trained_linear"],
                "untrained_linear": run["untrained_linear"],
                "verdict": verdicts[-1].state,
                "first_alarm": alarms[0][0] if alarms else "",
                "first_state": alarms[0][1] if alarms else "",
                "first_action": acts[0] if acts else "",
                "ends_badly": verdicts[-1].needs_action or verdicts[-1].state == "not learning",
                "onset": "" if began is None else began,
                "steps": int(rows[-1]["step"]),
            }
        )
    return table


def correlations(runs: list[dict[str, str]], draws: int = 2_000) -> list[dict[str, Any]]:
    """Spearman's rank correlation of each meter with each probe, with 95 % bootstrap intervals."""
    done = [run for run in runs if run["ended"] == "done"]
    generator = np.random.default_rng(0)
    table = []
    groups = {
        "all": done,
        "shapes": [run for run in done if run["data"] == "shapes"],
        "cifar10": [run for run in done if run["data"] == "cifar10"],
    }
    for group, members in groups.items():
        for embedding in ("h", "z"):
            for meter in METERS:
                column = f"{meter}_{embedding}"
                kept = [run for run in members if run.get(column)]
                if len(kept) < 8:
                    continue
                # Ranks are taken within each data set, as one is harder than the other.
                sets = [[run for run in kept if run["data"] == name] for name in DATA]
                for probe in PROBES:
                    pairs = np.concatenate(
                        [
                            np.stack(
                                [
                                    centered_ranks([float(run[column]) for run in part]),
                                    centered_ranks(
                                        [float(run[f"trained_{probe}"]) for run in part]
                                    ),
                                ],
                                axis=1,
                            )
                            for part in sets
                            if part
                        ]
                    )
                    resampled = [
                        correlation(pairs[generator.integers(0, len(pairs), len(pairs))])
                        for _ in range(draws)
                    ]
                    low, high = np.nanpercentile(resampled, [2.5, 97.5])
                    table.append(
                        {
                            "runs": group,
                            "meter": column,
                            "probe": probe,
                            "n": len(pairs),
                            "spearman": f"{correlation(pairs):.3f}",
                            "low": f"{low:.3f}",
                            "high": f"{high:.3f}",
                        }
                    )
    return table


def centered_ranks(values: list[float]) -> np.ndarray:
    ranks = rankdata(values)
    return (ranks - ranks.mean()) / len(ranks)


def correlation(pairs: np.ndarray) -> float:
    return float(np.corrcoef(pairs.T)[0, 1])


def report() -> None:
    table = judge_all()
    write(RESULTS / "watchdog_verdicts.csv", table)
    for row in table:
        print(", ".join(f"{value}" for value in row.values()))
    failed = [row for row in table if row["labels"] in ("failed", "stopped itself")]
    worked = [row for row in table if row["labels"] in ("worked",)]
    caught = [row for row in failed if row["ends_badly"]]
    wrong = [row for row in worked if row["ends_badly"] or row["first_action"] != ""]
    delays = [
        row["first_alarm"] - row["onset"]
        for row in caught
        if row["onset"] != "" and row["first_alarm"] not in ("", row["steps"])
    ]
    print(f"{len(table)} runs: {len(failed)} failed, {len(caught)} of them noticed; ", end="")
    missed = [row for row in failed if not row["ends_badly"]]
    print("missed:", "; ".join(f"{row['variant']} ({row['verdict']})" for row in missed))
    print(f"{len(worked)} worked, {len(wrong)} of them with an alarm that needs action: ", end="")
    print("; ".join(f"{row['data']} {row['variant']} ({row['first_state']})" for row in wrong))
    if delays:
        print(f"steps from onset to alarm: median {np.median(delays):.0f}, {sorted(delays)}")
    ranking = correlations(read(RUNS))
    write(RESULTS / "watchdog_correlations.csv", ranking)
    strongest = sorted(ranking, key=lambda row: -abs(float(row["spearman"])))
    for row in [row for row in strongest if row["runs"] == "all"][:20]:
        print(f"{row['meter']:24} {row['probe']:7} {row['spearman']} [{row['low']}, {row['high']}]")


def write(path: Path, table: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train", nargs="?", type=Path)
    parser.add_argument("test", nargs="?", type=Path)
    parser.add_argument("--judge", action="store_true", help="only read the tables")
    parser.add_argument("--most", type=int, default=10**6, help="the most runs to add now")
    chosen = parser.parse_args()
    if chosen.judge:
        report()
        return
    if chosen.train is None or chosen.test is None:
        parser.error("give the train and test folders of CIFAR-10")
    data = load(chosen.train, chosen.test)
    measure_starts(data)
    done = {(row["data"], row["variant"], int(row["seed"])) for row in read(RUNS)}
    for each in [each for each in list_runs() if each not in done][: chosen.most]:
        run_one(*each, data[each[0]])


if __name__ == "__main__":
    main()
