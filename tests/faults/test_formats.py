"""What earlier versions wrote can be used; what newer ones wrote is refused with a sentence."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from written_formats import HERE, describe, make_encoder, pixels, rebuild

import noneg
from noneg.classifier.classifier import load_classifier
from noneg.encoder import FORMAT
from noneg.errors import NonegError
from noneg.records.contents import read_run
from noneg.records.directory import RunDirectory
from noneg.training import checkpoints
from noneg.training.config import load_config

KEPT = sorted(each for each in HERE.iterdir() if each.is_dir())
every_version = pytest.mark.parametrize("kept", KEPT, ids=lambda each: each.name)


@every_version
def test_an_encoder_embeds_as_it_did(kept: Path, tmp_path: Path) -> None:
    encoder = noneg.load(make_encoder(kept, tmp_path / "encoder"))
    expected = json.loads((kept / "embedded.json").read_text())
    np.testing.assert_allclose(encoder.embed(pixels()[:2])[:, :4], expected, rtol=1e-3, atol=1e-4)
    # The control: other weights give other embeddings.
    assert np.std(expected) > 0.01


@pytest.mark.parametrize(
    "earlier",
    [
        {"format": 1, "norm": "left out", "interpolation": "left out"},
        {"format": 2, "interpolation": "left out"},
    ],
)
def test_an_encoder_of_an_earlier_format(earlier: dict[str, Any], tmp_path: Path) -> None:
    """Formats 1 and 2 are those of 0.1.0 while it was made; later fields have one value there."""
    kept = HERE / "0.1.0"
    encoder = noneg.load(make_encoder(kept, tmp_path / "encoder", **earlier))
    expected = json.loads((kept / "embedded.json").read_text())
    np.testing.assert_allclose(encoder.embed(pixels()[:2])[:, :4], expected, rtol=1e-3, atol=1e-4)
    assert (encoder.info.norm, encoder.info.interpolation) == ("batch", "bilinear")


def make_run(kept: Path, place: Path, **settings: Any) -> RunDirectory:
    """The run of a kept version, stopped at its last checkpoint."""
    run = RunDirectory(place / "run")
    run.last_checkpoint.parent.mkdir(parents=True)
    np.save(place / "images.npy", pixels())
    for name in ("run.json", "scores.json", "metrics.csv"):
        (run.path / name).write_text((kept / name).read_text())
    fields = yaml.safe_load((kept / "config.yaml").read_text())
    fields |= {"data": str(place / "images.npy"), **settings}
    run.config_file.write_text(yaml.safe_dump(fields))
    state = rebuild(json.loads((kept / "checkpoint.json").read_text()))
    torch.save(state, run.last_checkpoint)
    return run


@every_version
def test_a_run_is_read_and_goes_on(kept: Path, tmp_path: Path) -> None:
    run = make_run(kept, tmp_path, steps=9)
    files = read_run(run.path)
    scores = json.loads((kept / "scores.json").read_text())
    assert files.scores["pixels"]["knn"] == scores["pixels"]["knn"]
    assert list(files.metrics["step"])[-1] == 6
    finished = noneg.train(resume_from=run.path)
    assert [int(row["step"]) for row in run.metrics.read()][-1] == 9
    assert finished.encoder.info.method == "byol"


@every_version
def test_a_classifier_is_loaded(kept: Path, tmp_path: Path) -> None:
    place = make_encoder(kept, tmp_path / "classes")
    (place / "classifier.json").write_text((kept / "classifier.json").read_text())
    tensors = {"weight": torch.ones(2, 256), "bias": torch.zeros(2)}
    save_file(tensors, place / "classifier.safetensors")
    assert load_classifier(place).classes == ("a", "b")


def test_newer_files_are_refused(tmp_path: Path) -> None:
    kept = KEPT[-1]
    newer = make_encoder(kept, tmp_path / "encoder", format=FORMAT + 1, noneg="9.9")
    with pytest.raises(NonegError, match=r"a newer noneg wrote \(9\.9\): upgrade noneg"):
        noneg.load(newer)
    run = make_run(kept, tmp_path, steps=9)
    state = torch.load(run.last_checkpoint, weights_only=True)
    torch.save(state | {"format": checkpoints.FORMAT + 1}, run.last_checkpoint)
    with pytest.raises(NonegError, match=r"last\.ckpt was written by a newer noneg: upgrade noneg"):
        noneg.train(resume_from=run.path)
    run.config_file.write_text(run.config_file.read_text() + "warp: 9\n")
    with pytest.raises(NonegError, match="has the setting 'warp', which this noneg does not know"):
        load_config(run.config_file)


def test_kept_values_are_rebuilt() -> None:
    """The control: what `describe` keeps is what `rebuild` makes."""
    state = {"a": [1, (torch.ones(2, 3), None)], 5: {"var": torch.tensor(3)}}
    again = rebuild(json.loads(json.dumps(describe(state))))
    assert describe(again) == describe(state)
    assert again[5]["var"] == 3
    assert again["a"][1][0].std() > 0
