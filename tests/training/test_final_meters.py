"""`noneg evaluate` repeats the meters at the end of a run, of both networks."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import noneg
from noneg.commands.evaluate import evaluate_run
from noneg.evaluation.scores import untrained
from noneg.images import find_source, load_images
from noneg.records.directory import RunDirectory
from noneg.training.build import build_method, describe_encoder, measure_first_layer, measure_norms
from noneg.training.config import make_config
from noneg.training.data import load_for_training
from noneg.training.final_meters import measure_trained_and_untrained, untrained_method
from noneg.training.plan import complete, plan_of

SETTINGS: dict[str, Any] = {
    "method": "byol",
    "options": {"projector": (16, 8), "predictor_hidden": 8},
    "epochs": 2,
    "batch_size": 8,
    "size": 16,
    "report": False,
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "images.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8))
    return path


@pytest.mark.parametrize("norm", ["batch", "group", "frozen"])
@pytest.mark.parametrize(("seed", "views"), [(0, "gentle"), (3, "weak")])
def test_evaluate_repeats_the_meters_of_the_run(
    norm: str, seed: int, views: str, images: Path, tmp_path: Path
) -> None:
    settings = {**SETTINGS, "norm": norm, "seed": seed, "views": views}
    run = RunDirectory(noneg.train(images, out=str(tmp_path / "run"), **settings).directory)
    written = run.read_meters()
    assert written is not None
    again = evaluate_run(run.path, str(images))
    shutil.rmtree(run.path / "checkpoints")
    without_checkpoint = evaluate_run(run.path, str(images))
    for evaluation, embeddings in ((again, ("h", "z")), (without_checkpoint, ("h",))):
        found = {"trained": evaluation.meters, "untrained": evaluation.untrained_meters}
        for side, meters in found.items():
            assert meters.keys() == set(embeddings)
            for embedding in embeddings:
                for name, value in written[side][embedding].items():
                    now = meters[embedding][name]
                    expected = float("nan") if value is None else value
                    assert now == pytest.approx(expected, rel=1e-4, nan_ok=True), (side, name)
    assert written["trained"]["h"] != written["untrained"]["h"]


def test_seed_and_views_decide_the_meters_of_one_network(images: Path, tmp_path: Path) -> None:
    """The control: the comparison above can tell settings apart, on both sides."""
    run = noneg.train(images, out=str(tmp_path / "run"), evaluate=False, **SETTINGS)
    plan = plan_of(run.config)
    method = _trained(run, plan)
    pixels = load_images(find_source(str(images)), channels=3, size=16)
    meters = [
        measure_trained_and_untrained(
            method, run.encoder.info, pixels, plan_of(replace(run.config, **settings))
        )
        for settings in ({}, {"seed": 3}, {"views": "weak"})
    ]
    for side in (0, 1):
        alignments = {each[side]["h"]["alignment"] for each in meters}
        assert len(alignments) == 3


def test_the_untrained_network_with_frozen_norms_has_the_initial_statistics(
    images: Path, tmp_path: Path
) -> None:
    settings = {**SETTINGS, "norm": "frozen", "seed": 2}
    run = noneg.train(images, out=str(tmp_path / "run"), evaluate=False, **settings)
    config = make_config(str(images), **settings)
    source = find_source(str(images))
    plan = complete(config, source)
    loaded = load_for_training(source, plan, RunDirectory(tmp_path))
    start = build_method(plan)
    info = describe_encoder(start.backbone, plan, loaded)
    measure_first_layer(start, loaded, plan, info)
    measure_norms(start, loaded, plan, info)
    for name, value in untrained_method(_trained(run, plan), plan).state_dict().items():
        assert torch.equal(value, start.state_dict()[name]), name
    for name, value in untrained(run.encoder, seed=2).module.state_dict().items():
        assert torch.equal(value, start.backbone.state_dict()[name]), name


def _trained(run: noneg.Run, plan: Any) -> Any:
    from noneg.training.checkpoints import load_weights, read_checkpoint

    method = build_method(plan)
    load_weights(method, read_checkpoint(RunDirectory(run.directory).last_checkpoint))
    return method
