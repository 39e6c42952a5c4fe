"""The table of all methods, from the rows of benchmarks/methods.py.

python benchmarks/methods_table.py
python benchmarks/methods_table.py --against vicreg    # differences, paired by seed
python benchmarks/methods_table.py --publish           # into its page and `noneg list methods`

Runs that failed, and those with less computing than others, are left out.
"""

import argparse
import csv
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from methods_pace import REFERENCE
from noneg.methods import find_method
from speedrun import percent, read_rows

TABLE = Path("benchmarks/results/methods.csv")
MEASURED_TABLE = Path("src/noneg/methods/measured.csv")
PAGE = Path("docs/methods-compared.md")

MEDIANS = {
    "images_per_s": "{:.0f}",
    "peak_mib": "{:,.0f} MiB",
    "loss_share": "{:.1%}",
    "effective_rank": "{:.0f}",
}
"""Columns of which the table shows the median, and how."""

UNTRAINED = "untrained"
"""The same network before training, beside the methods."""


def finished(rows: Sequence[Mapping[str, str]], name: str = "small") -> list[Mapping[str, str]]:
    """The runs that ended, of settings with this name, with the most computing."""
    done = [row for row in rows if row["status"] == "done" and row["name"] == name]
    most = max((int(row["vicreg_steps"]) for row in done), default=0)
    return [row for row in done if int(row["vicreg_steps"]) == most]


def grouped(
    rows: Sequence[Mapping[str, str]], *columns: str
) -> dict[tuple[str, ...], list[Mapping[str, str]]]:
    """The rows by what they have in these columns, in their order."""
    groups: dict[tuple[str, ...], list[Mapping[str, str]]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[column] for column in columns)].append(row)
    return groups


def mean_of(rows: Sequence[Mapping[str, str]], column: str) -> float:
    """The mean, or nan without rows."""
    return statistics.mean(float(row[column]) for row in rows) if rows else float("nan")


def family_of(method: str) -> str:
    """The method's kind; blank without one."""
    traits = None if method == UNTRAINED else find_method(method).traits
    return "" if traits is None else traits.family


def summarize(rows: Sequence[Mapping[str, str]], name: str = "small") -> str:
    """One row for each method, accuracies on each data set beside each other, as Markdown.

    The best linear probe on the first data set comes first. Costs, rank and verdict are of that
    data set too; a verdict that is different on another one is named with it.
    """
    chosen = finished(rows, name)
    datasets = [dataset for (dataset,) in grouped(chosen, "dataset")]
    by_run = grouped(chosen, "method", "dataset")
    methods = sorted(
        (method for (method,) in grouped(chosen, "method")),
        key=lambda method: -mean_of(by_run[method, datasets[0]], "linear"),
    )
    header = ["method", "kind"]
    header += [f"{dataset}: {column}" for dataset in datasets for column in ("n", "kNN", "linear")]
    header += ["images/s", "peak memory", "loss", "rank", "verdict"]
    lines = [header, ["---"] * len(header)]
    for method in methods:
        cells = [f"`{method}`", family_of(method)]
        for dataset in datasets:
            own = by_run[method, dataset]
            cells += [str(len(own)), *(percent(own, probe) for probe in ("knn", "linear"))]
        first = by_run[method, datasets[0]]
        costs = (_median(first, column, form) for column, form in MEDIANS.items())
        lines.append([*cells, *costs, verdicts(by_run, method)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _median(rows: Sequence[Mapping[str, str]], column: str, form: str) -> str:
    """Of the rows that have a value; the untrained network has none."""
    values = [float(row[column]) for row in rows if row[column]]
    return form.format(statistics.median(values)) if values else ""


def verdicts(by_run: Mapping[tuple[str, ...], Sequence[Mapping[str, str]]], method: str) -> str:
    """The verdict, or how often each was given on each data set."""
    found = {
        dataset: Counter(row["verdict"] for row in own if row["verdict"])
        for (of, dataset), own in by_run.items()
        if of == method
    }
    every = {verdict for counts in found.values() for verdict in counts}
    if len(every) < 2:
        return "".join(every)
    return "; ".join(
        f"{dataset}: " + ", ".join(f"{verdict} {count}" for verdict, count in counts.most_common())
        for dataset, counts in found.items()
    )


def against(rows: Sequence[Mapping[str, str]], reference: str) -> str:
    """Each method's accuracy less that of another one with the same seed, as Markdown.

    In points, mean and standard error; methods with two or more common seeds on a data set.
    """
    lines = ["| data set | method | n | kNN | linear |", "|---|---|---|---|---|"]
    for (dataset,), own in grouped(finished(rows), "dataset").items():
        by_method = grouped(own, "method")
        others = {row["seed"]: row for row in by_method.pop((reference,), [])}
        for (method,), runs in by_method.items():
            pairs = [(row, others[row["seed"]]) for row in runs if row["seed"] in others]
            if len(pairs) < 2:
                continue
            cells = [dataset, f"`{method}`", str(len(pairs))]
            for probe in ("knn", "linear"):
                gains = [100 * (float(one[probe]) - float(other[probe])) for one, other in pairs]
                error = statistics.stdev(gains) / math.sqrt(len(gains))
                cells.append(f"{statistics.mean(gains):+.1f} ± {error:.1f}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def measured(rows: Sequence[Mapping[str, str]], dataset: str) -> list[dict[str, str]]:
    """Each method's mean accuracy on a data set after the most steps, best linear probe first."""
    done = [row for row in rows if row["dataset"] == dataset and row["method"] != UNTRAINED]
    found = [
        {
            "method": method,
            "linear": percent(own, "linear").split()[0],
            "knn": percent(own, "knn").split()[0],
            "runs": str(len(own)),
            "dataset": dataset,
            "vicreg_steps": own[0]["vicreg_steps"],
            "date": max(row["date"] for row in own),
        }
        for (method,), own in grouped(finished(done), "method").items()
    ]
    return sorted(found, key=lambda row: (-float(row["linear"]), row["method"]))


def with_tables(page: str, *tables: str) -> str:
    """The page with each table in place of the one that has the same first two columns."""
    for table in tables:
        begin = page.index("|".join(table.split("|")[:3]))
        page = page[:begin] + table + page[page.index("\n\n", begin) :]
    return page


def publish(rows: Sequence[Mapping[str, str]]) -> None:
    """Write both tables into the page, and for `noneg list methods` those of the first data set."""
    page = PAGE.read_text(encoding="utf-8")
    page = with_tables(page, summarize(rows), against(rows, REFERENCE))
    PAGE.write_text(page, encoding="utf-8")
    shown = measured(rows, rows[0]["dataset"])
    with MEASURED_TABLE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(shown[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=Path, default=TABLE)
    parser.add_argument("--name", default="small", help="of the settings (default: small)")
    parser.add_argument("--against", metavar="METHOD", help="differences from this method instead")
    parser.add_argument(
        "--publish",
        action="store_true",
        help=f"write both into {PAGE}, and what noneg list methods shows",
    )
    chosen = parser.parse_args()
    rows = read_rows(chosen.rows)
    if chosen.publish:
        publish(rows)
    elif chosen.against is not None:
        print(against(rows, chosen.against))
    else:
        print(summarize(rows, chosen.name))


if __name__ == "__main__":
    main()
