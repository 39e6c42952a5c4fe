"""Every study can be built, judged and drawn; nothing is trained here."""

from dataclasses import replace
from pathlib import Path

import pytest
from made_up import whole_study
from matplotlib.figure import Figure

from noneg.errors import NonegError
from noneg.experiments.cache import RunCache
from noneg.experiments.conduct import make_run_config, shared_settings
from noneg.experiments.page import draw_figure
from noneg.experiments.results import Results
from noneg.experiments.scale import HEADS, QUICK, STANDARD
from noneg.experiments.study import JudgedStudy, Study, Variant
from noneg.methods import find_method
from noneg.studies import find_study, list_studies

every_study = pytest.mark.parametrize("study", list_studies(), ids=lambda study: study.name)


def judged(study: Study, results: Results, directory: Path) -> JudgedStudy:
    return JudgedStudy(
        study, "shapes", f"noneg study {study.name}", STANDARD, False, 1, results, (), directory
    )


@every_study
@pytest.mark.parametrize("quick", [False, True])
def test_every_variant_is_a_run_of_its_own(study: Study, quick: bool) -> None:
    shared = shared_settings(study, quick, {})
    cache = RunCache(Path(), quick=quick)
    variants = [each for each in study.variants if each.quick or not quick]
    configs = [make_run_config(each, "shapes", shared, 3, quick) for each in variants]
    assert len({cache.run_directory(study, each) for each in configs}) == len(configs) >= 2
    for variant, config in zip(variants, configs, strict=True):
        assert config.seed == 3
        assert not config.evaluate
        assert config.method == variant.settings["method"]
        options = {**(study.settings.get("options") or {}), **variant.settings.get("options", {})}
        for name, value in options.items():
            chosen = getattr(config.options, name)
            assert (list(chosen) if isinstance(chosen, tuple) else chosen) == value, name
        if hasattr(config.options, "projector") and "projector" not in options:
            assert list(config.options.projector) == HEADS["projector"]
        if quick:
            assert config.batch_size is not None
            assert config.batch_size <= 64
            assert config.epochs == QUICK["epochs"]
        find_method(config.method)


@every_study
def test_names_are_unique_and_claims_are_about_them(study: Study, tmp_path: Path) -> None:
    names = [each.name for each in study.variants]
    assert len(set(names)) == len(names)
    assert study.papers
    assert not any("|" in claim.sentence for claim in study.claims)
    # A claim that misspells a variant would always be undecided.
    whole = whole_study(study, tmp_path)
    outcomes = [claim.criterion(whole) for claim in study.claims]
    assert [each.reason for each in outcomes if "not enough runs" in each.reason] == []


@every_study
def test_nothing_is_decided_without_results(study: Study) -> None:
    for claim in study.claims:
        assert claim.criterion(Results(())).holds is None, claim.sentence


@every_study
def test_the_figure_is_drawn_of_all_and_of_few(study: Study, tmp_path: Path) -> None:
    whole = whole_study(study, tmp_path / "run")
    few = Results([run for run in whole.runs if run.seed == 0][:1])
    draw_figure(judged(study, whole, tmp_path), tmp_path / "whole.png")
    assert (tmp_path / "whole.png").read_bytes().startswith(b"\x89PNG")
    draw_figure(judged(study, few, tmp_path), tmp_path / "few.png")
    figure = Figure()
    study.draw(whole, figure)
    assert any(axis.lines or axis.patches for axis in figure.axes)


def test_a_name_that_is_nearly_right() -> None:
    with pytest.raises(NonegError, match=r"no study 'bare_siames' \(did you mean bare-siamese\?\)"):
        find_study("bare_siames")


@pytest.mark.parametrize("quick", [False, True])
def test_the_last_length_replaces_the_others(quick: bool) -> None:
    """A variant's steps replace the shared epochs; quick runs are short, whatever is given."""
    long = Variant("long", {"method": "siamese", "steps": 7})
    config = make_run_config(long, "shapes", QUICK if quick else STANDARD, 0, quick)
    assert (config.epochs, config.steps) == ((QUICK["epochs"], None) if quick else (None, 7))
    study = replace(find_study("em"), settings={"steps": 9})
    assert "epochs" not in shared_settings(study, quick=False, settings={})
    shared = shared_settings(study, quick=quick, settings={"minutes": 2})
    assert [name for name in ("epochs", "steps", "minutes") if name in shared] == ["minutes"]
    assert ("epochs" in shared_settings(study, quick=quick, settings={})) == quick
