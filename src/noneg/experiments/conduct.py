"""Run a study: train what is missing, judge the claims, write the page."""

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from noneg.experiments.cache import RunCache
from noneg.experiments.page import write_study_page
from noneg.experiments.results import Results
from noneg.experiments.scale import HEADS, QUICK, STANDARD, built_in_images
from noneg.experiments.study import JudgedStudy, Study, Variant
from noneg.files import check_can_be_written
from noneg.images import find_source
from noneg.methods import find_method
from noneg.progress import progress_bar
from noneg.training.config import LENGTHS, TrainConfig, make_config

Grid = Sequence[tuple[Variant, TrainConfig]]


def conduct_study(
    study: Study,
    data: str = "shapes",
    *,
    out: Path = Path("studies"),
    eval_data: str | None = None,
    seeds: int = 3,
    budget: float | None = None,
    quick: bool = False,
    settings: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> JudgedStudy:
    """Run what is missing, judge the claims, and write a CSV, a figure and a page.

    Args:
        study: from `noneg.studies.find_study`.
        data: images, by name or path, as `noneg.train` takes them.
        out: directory of the runs, the CSV, the figure and the page.
        eval_data: labeled images to score on.
        seeds: number of runs per variant; all variants run with the first seed first.
        budget: minutes after which no new run starts; 0 only judges what is finished.
        quick: a run of about two minutes, with one seed, that decides nothing.
        settings: of `noneg.train`, for all runs.
        progress: show a bar on stderr.

    Raises:
        NonegError: the data or a setting cannot be used, or `out` cannot be written.
        KeyboardInterrupt: Ctrl-C; finished runs are judged and written first.
    """
    check_can_be_written(out, is_directory=True)
    command_line = _command_line(study, data, eval_data, seeds, quick, settings or {})
    described = data
    shared = shared_settings(study, quick, settings or {})
    if data == "shapes" and eval_data is None:
        train, test = built_in_images(out / "data", quick)
        data, eval_data, described = str(train), str(test), "shapes (built in)"
        shared = {"views": "outline", **shared}
    if eval_data is not None:
        shared["eval_data"] = eval_data
    grid = [
        (variant, make_run_config(variant, data, shared, seed, quick))
        for seed in range(1 if quick else seeds)
        for variant in study.variants
        if variant.quick or not quick
    ]
    cache = RunCache(out, quick=quick)
    completed = _run_missing(study, data, grid, cache, budget, progress)
    finished = [cache.finished(study, *each) for each in grid]
    results = Results(tuple(run for run in finished if run is not None))
    outcomes = tuple(claim.criterion(results) for claim in study.claims)
    judged = JudgedStudy(
        study, described, command_line, shared, quick, len(grid), results, outcomes, out
    )
    write_study_page(judged)
    if not completed:
        raise KeyboardInterrupt("Run the same command again to continue")
    return judged


def shared_settings(study: Study, quick: bool, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of all runs: the standard ones, then the study's, then `settings`."""
    shared = _with(QUICK if quick else STANDARD, study.settings)
    if quick:
        smaller = ("epochs", "size", "batch_size", "backbone")
        shared = _with(shared, {name: QUICK[name] for name in smaller})
    return _with(shared, settings)


def _with(settings: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """`more` takes precedence; a length in it replaces any other length."""
    replaced = LENGTHS if any(name in more for name in LENGTHS) else ()
    return {name: value for name, value in settings.items() if name not in replaced} | dict(more)


def make_run_config(
    variant: Variant, data: str, shared: Mapping[str, Any], seed: int, quick: bool
) -> TrainConfig:
    """The variant's settings over the shared ones; heads have `HEADS`' widths by default.

    Raises:
        NonegError: a setting does not exist or cannot have this value.
    """
    settings = _with(shared, variant.settings) | {"seed": seed, "evaluate": False}
    if quick:
        # A quick run has few images, so it skips large batches and long runs.
        settings["batch_size"] = min(settings["batch_size"], 64)
        settings = _with(settings, {name: shared[name] for name in LENGTHS if name in shared})
    options = find_method(settings.get("method", TrainConfig.method)).options
    known = {field.name for field in fields(options)}
    heads = {name: widths for name, widths in HEADS.items() if name in known}
    given = {**(shared.get("options") or {}), **(variant.settings.get("options") or {})}
    settings["options"] = {**heads, **given}
    return make_config(data, **settings)


def _run_missing(
    study: Study, data: str, grid: Grid, cache: RunCache, budget: float | None, progress: bool
) -> bool:
    """Run what is not finished, within the budget; returns False after Ctrl-C."""
    started = time.monotonic()
    missing = [each for each in grid if cache.finished(study, *each) is None]
    if missing:
        # Fail on unusable data before the progress bar appears.
        find_source(data)
    # Runs print to their own log files, so the bar has the terminal to itself.
    with progress_bar(total=len(missing), desc=study.name, unit="runs", shown=progress) as bar:
        for variant, config in missing:
            if budget is not None and time.monotonic() - started >= 60 * budget:
                break
            bar.set_postfix_str(f"{variant.name}, seed {config.seed}", refresh=True)
            try:
                cache.run(study, variant, config)
            except KeyboardInterrupt:
                return False
            bar.update()
    return True


def _command_line(
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
