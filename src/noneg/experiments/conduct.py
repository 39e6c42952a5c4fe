"""Run a study's grid: what is kept is not run again, what was stopped goes on, and judge."""

import json
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from noneg.experiments.cache import Cache
from noneg.experiments.page import write_report
from noneg.experiments.results import Result, Results
from noneg.experiments.scale import HEADS, QUICK, STANDARD, built_in_images
from noneg.experiments.study import Report, Study, Variant
from noneg.images import find_source
from noneg.methods import find_method
from noneg.training.config import TrainConfig, make_config


def conduct(
    study: Study,
    data: str = "shapes",
    *,
    out: Path = Path("studies"),
    eval_data: str | None = None,
    seeds: int = 3,
    budget: float | None = None,
    quick: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Report:
    """Run what is missing, judge the claims, and write a CSV, a figure and a page.

    Args:
        study: from `noneg.studies.find_study`.
        data: images, as `noneg.train` takes them by name or path.
        out: directory of the runs and of what is written.
        eval_data: labeled images to score on.
        seeds: of each variant; all variants with the first seed come first.
        budget: start no new run after so many minutes; 0 judges what is there.
        quick: a look in about two minutes, with one seed, that decides nothing.
        settings: of `noneg.train`, over the scale's.

    Raises:
        NonegError: the data or a setting cannot be used.
        KeyboardInterrupt: Ctrl-C; what is finished is judged and written first.
    """
    scale = {**(QUICK if quick else STANDARD), **study.settings}
    if quick:
        scale |= {name: QUICK[name] for name in ("epochs", "size", "batch_size", "backbone")}
    scale |= settings or {}
    described = data
    command = _command(study, data, eval_data, seeds, quick, settings or {})
    if data == "shapes" and eval_data is None:
        train, test = built_in_images(out / "data", quick)
        data, eval_data, described = str(train), str(test), "shapes (built in)"
        scale = {"views": "outline", **scale}
    if eval_data is not None:
        scale["eval_data"] = eval_data
    variants = [each for each in study.variants if each.quick or not quick]
    plan = [
        (variant, make_run_config(variant, data, scale, seed, quick))
        for seed in range(1 if quick else seeds)
        for variant in variants
    ]
    cache = Cache(out, quick=quick)
    interrupt: KeyboardInterrupt | None = None
    started = time.monotonic()
    missing = [each for each in plan if cache.find(study, *each) is None]
    if missing:
        # Data that cannot be used is said before there is a bar.
        find_source(data)
    # Runs send what they say to a file of their own: the bar alone goes to the terminal.
    with tqdm(total=len(missing), desc=study.name, unit="run", file=sys.stderr) as bar:
        for variant, config in missing:
            if budget is not None and time.monotonic() - started >= 60 * budget:
                break
            bar.set_postfix_str(f"{variant.name}, seed {config.seed}")
            try:
                cache.run(study, variant, config)
            except KeyboardInterrupt as error:
                interrupt = error
                break
            bar.update()
    rows = []
    for variant, config in plan:
        if (kept := cache.find(study, variant, config)) is not None:
            rows.append(
                Result(
                    variant.name,
                    config.seed,
                    _differences(variant),
                    kept["numbers"],
                    kept["diverged"],
                    cache.directory(config, study.meter_name),
                )
            )
    results = Results(tuple(rows))
    outcomes = tuple(claim.judge(results) for claim in study.claims)
    report = Report(study, described, command, scale, quick, len(plan), results, outcomes, out)
    write_report(report)
    if interrupt is not None:
        raise KeyboardInterrupt("Go on with the same command")
    return report


def make_run_config(
    variant: Variant, data: str, scale: Mapping[str, Any], seed: int, quick: bool
) -> TrainConfig:
    """The variant's settings over the scale's; heads have the study's widths unless it says so.

    Raises:
        NonegError: a setting does not exist or cannot have this value.
    """
    settings = {**scale, **variant.settings, "seed": seed, "evaluate": False}
    if quick:
        # A quick look has few images, and none of the large batches, networks and long runs.
        settings["batch_size"] = min(settings["batch_size"], 64)
        settings["epochs"] = scale["epochs"]
    options = find_method(settings.get("method", TrainConfig.method)).options
    known = {field.name for field in fields(options)}
    heads = {name: widths for name, widths in HEADS.items() if name in known}
    given = {**(scale.get("options") or {}), **(variant.settings.get("options") or {})}
    settings["options"] = {**heads, **given}
    return make_config(data, **settings)


def _differences(variant: Variant) -> dict[str, Any]:
    return {
        name: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        for name, value in variant.settings.items()
    }


def _command(
    study: Study,
    data: str,
    eval_data: str | None,
    seeds: int,
    quick: bool,
    settings: Mapping[str, Any],
) -> str:
    words = ["noneg", "study", study.name]
    words += [data] if data != "shapes" else []
    words += ["--eval-data", eval_data] if eval_data is not None else []
    words += ["--quick"] if quick else ["--seeds", str(seeds)]
    for name, value in settings.items():
        words += ["--set", f"{name}={json.dumps(value)}"]
    return shlex.join(words)
