"""A student learns its teacher's features from views; the teacher's files and names."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import noneg
from conftest import TinyBackbone
from noneg.encoder import Encoder, EncoderInfo
from noneg.errors import NonegError
from noneg.methods.base import Embeddings
from noneg.methods.distill import Distill, Options

rng = np.random.default_rng(0)
LABELS = np.arange(96) % 4
# A color for each class, and noise.
COLORS = rng.integers(40, 216, (4, 1, 1, 3))
IMAGES = (COLORS[LABELS] + rng.integers(-40, 40, (96, 16, 16, 3))).astype(np.uint8)
SETTINGS: dict[str, Any] = {
    "method": "distill",
    "labels": LABELS,
    "size": 16,
    "batch_size": 16,
    "epochs": 1,
    "report": False,
    "precision": "32-true",
}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_targets_are_the_first_principal_components() -> None:
    method = Distill(TinyBackbone(), 16, Options(projector=(3,)))
    features = random(50, 8) * torch.tensor([5.0, 4, 3, 2, 1, 0.5, 0.2, 0.1]) + 10
    method.set_targets(features)
    centered = features - features.mean(dim=0)
    u, s, _ = torch.linalg.svd(centered, full_matrices=False)
    # Up to signs.
    torch.testing.assert_close(method.targets.abs(), (u * s)[:, :3].abs(), atol=1e-4, rtol=1e-4)


def test_targets_have_the_same_signs_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    method, features = Distill(TinyBackbone(), 16, Options(projector=(3,))), random(50, 8)
    method.set_targets(features)
    before, usual = method.targets.clone(), torch.linalg.eigh

    def other_signs(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values, vectors = usual(matrix)
        return values, vectors * torch.tensor([1, -1, 1, 1, -1, -1, 1, -1])

    monkeypatch.setattr(torch.linalg, "eigh", other_signs)
    method.set_targets(features)
    torch.testing.assert_close(method.targets, before)


def test_a_teacher_with_fewer_features_keeps_its_cosines() -> None:
    method = Distill(TinyBackbone(), 16, Options(projector=(12,)))
    features = random(20, 5)
    method.set_targets(features)
    centered = features - features.mean(dim=0)
    torch.testing.assert_close(method.targets @ method.targets.T, centered @ centered.T)


def test_each_image_has_its_own_target() -> None:
    method = Distill(TinyBackbone(), 16, Options(projector=(6,)))
    method.set_targets(random(30, 6))
    index = torch.tensor([7, 3, 21])
    at_target = method.targets[index][None].repeat(2, 1, 1)
    h = torch.zeros(2, 3, 16)
    right = method.objective(Embeddings(h=h, z=at_target, index=index))
    wrong = method.objective(Embeddings(h=h, z=at_target, index=index.flip(0)))
    assert float(right.value) == pytest.approx(0, abs=1e-6)
    assert float(wrong.value) > 0.1


def test_terms_of_both_losses() -> None:
    method = Distill(TinyBackbone(), 16, Options(projector=(6,), relational=2.0, loss="smooth_l1"))
    method.set_targets(random(30, 6))
    e = Embeddings(h=torch.zeros(2, 5, 16), z=random(2, 5, 6, seed=1), index=torch.arange(5))
    loss = method.objective(e)
    assert set(loss.terms) == {"distance", "relational"}
    half = Distill(TinyBackbone(), 16, Options(projector=(6,), relational=1.0, loss="smooth_l1"))
    half.set_targets(random(30, 6))
    torch.testing.assert_close(loss.terms["relational"], 2 * half.objective(e).terms["relational"])


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder whose features are the mean colors of a picture's quarters."""
    directory = tmp_path_factory.mktemp("teacher")
    info = EncoderInfo(
        "test_distill:quarters", 3, 32, 32, (0.5,) * 3, (0.25,) * 3, 12, method="none"
    )
    Encoder(quarters(), info).save(directory)
    return directory


def quarters() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())


def test_the_student_finds_what_the_teacher_sees(tmp_path: Path) -> None:
    run = noneg.train(
        IMAGES,
        options={"teacher": "test_distill:quarters", "projector": (12,)},
        out=str(tmp_path / "run"),
        **{**SETTINGS, "epochs": 30},
    )
    assert [score.features for score in run.scores][:3] == ["trained", "teacher", "untrained"]
    kept = np.load(tmp_path / "run" / "teacher.npy")
    assert kept.shape == (96, 12)
    rows = (run.directory / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("loss")
    first, last = (float(row.split(",")[column]) for row in (rows[1], rows[-1]))
    assert last < 0.6 * first
    # Linearly in the student's features, on images that it has not seen.
    others = (COLORS[LABELS] + rng.integers(-40, 40, IMAGES.shape)).astype(np.uint8)
    seen = run.encoder.embed(others)
    wanted = others.reshape(96, 2, 8, 2, 8, 3).mean(axis=(2, 4)).reshape(96, 12)
    errors = {}
    for name, features in (("student", seen), ("shuffled", rng.permutation(seen))):
        inputs = np.concatenate([features, np.ones((96, 1))], axis=1)
        weights, *_ = np.linalg.lstsq(inputs[:48], wanted[:48], rcond=1e-3)
        rest = inputs[48:] @ weights - wanted[48:]
        errors[name] = float(np.square(rest).sum() / np.square(wanted - wanted.mean(0)).sum())
    assert errors["student"] < 0.2
    assert errors["shuffled"] > 0.5


def test_a_module_and_an_encoder_are_teachers(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noneg.networks.own._allowed", {"test_distill:quarters"})
    for number, given in enumerate((quarters(), str(teacher))):
        out = tmp_path / str(number)
        noneg.train(IMAGES, options={"teacher": given}, out=str(out), **SETTINGS)
        assert np.load(out / "teacher.npy").shape == (96, 12)


def test_resumed_targets_are_those_of_before(tmp_path: Path) -> None:
    """Features in the run's directory are used, and not computed again."""
    settings = {**SETTINGS, "evaluate": False}
    options = {"teacher": "test_distill:quarters"}
    noneg.train(IMAGES, options=options, out=str(tmp_path / "run"), **settings)
    path = tmp_path / "run" / "teacher.npy"
    marked = np.load(path)
    marked[0] = 5
    np.save(path, marked)
    noneg.train(IMAGES, resume_from=tmp_path / "run")
    np.testing.assert_array_equal(np.load(path), marked)
    path.write_bytes(path.read_bytes()[:-8])
    noneg.train(IMAGES, resume_from=tmp_path / "run")
    assert not np.array_equal(np.load(path), marked)


@pytest.mark.parametrize(
    ("options", "more", "sentence"),
    [
        ({}, {}, "distill needs a teacher: --options.teacher"),
        ({"teacher": "nowhere"}, {}, "no encoder in nowhere"),
        ({"teacher": "timm:nothing"}, {}, "timm has no network 'nothing'"),
        ({"teacher": "test_distill:quarters"}, {"cache": "none"}, "give --cache memory or disk"),
    ],
)
def test_what_is_no_teacher_is_one_sentence(
    tmp_path: Path, options: dict[str, Any], more: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(NonegError, match=sentence):
        noneg.train(IMAGES, options=options, out=str(tmp_path / "run"), **{**SETTINGS, **more})
    assert not (tmp_path / "run").exists()
