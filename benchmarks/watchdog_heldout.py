"""The watchdog on runs that were not used to choose its thresholds: those in the cache of studies.

noneg study byol-ablations cifar10-train-4000.npz --eval-data cifar10-test-2000.npz
python benchmarks/watchdog_heldout.py studies/cache
"""

import argparse
import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from noneg.diagnostics import judge
from watchdog import centered_ranks, read

TABLE = Path("benchmarks/results/watchdog_heldout.csv")


def look_at(run: Path) -> dict[str, Any] | None:
    """The last verdict on a finished run, and whether it worked according to the labels."""
    kept = json.loads((run / "result.json").read_text())
    # Runs of older versions say "random" where newer ones say "untrained".
    numbers = {name.replace("random_", "untrained_"): n for name, n in kept["numbers"].items()}
    if kept["diverged"] is not None or "untrained_knn" not in numbers:
        return None
    rows = [
        {name: float(value) for name, value in row.items() if value}
        for row in read(run / "metrics.csv")
    ]
    config = yaml.safe_load((run / "config.yaml").read_text())
    verdict = judge(rows, total_steps=int(rows[-1]["step"]))
    gains = [numbers[probe] - numbers[f"untrained_{probe}"] for probe in ("knn", "linear")]
    return {
        "method": config["method"],
        "data": Path(config["data"]).name,
        "backbone": config["backbone"],
        "views": json.dumps(config["views"]),
        "options": json.dumps(config["options"]),
        "batch_size": config["batch_size"],
        "seed": config["seed"],
        "labels": "worked" if sum(gains) / 2 > 0.02 else "failed",
        "knn": f"{numbers['knn']:.4f}",
        "linear": f"{numbers['linear']:.4f}",
        "verdict": verdict.state,
        "needs_action": verdict.needs_action,
        "view_retrieval_h": rows[-1].get("view_retrieval_h"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache", type=Path)
    chosen = parser.parse_args()
    runs = sorted(path.parent for path in chosen.cache.glob("*/result.json"))
    looked_at = (row for row in map(look_at, runs) if row is not None)
    # Studies with their own meters train some configurations again, with the same result.
    table = list({tuple(row.values()): row for row in looked_at}.values())
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    counts = Counter((row["labels"], row["verdict"], row["needs_action"]) for row in table)
    for (labels, verdict, acts), count in sorted(counts.items()):
        print(f"{labels:7} {verdict:22} {'acts' if acts else '':5} {count}")
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in table:
        # Retrieval also depends on the views: ranks are taken among runs with the same views.
        key = (row["data"], row["backbone"], row["views"])
        if row["view_retrieval_h"] is not None:
            groups.setdefault(key, []).append(row)
    large = [rows for rows in groups.values() if len(rows) >= 6]
    for probe in ("knn", "linear"):
        columns = [
            np.concatenate([centered_ranks([float(row[name]) for row in rows]) for rows in large])
            for name in ("view_retrieval_h", probe)
        ]
        found = float(np.corrcoef(columns)[0, 1])
        print(f"view retrieval of h, {probe}: rank correlation {found:.2f}, n = {len(columns[0])}")


if __name__ == "__main__":
    main()
