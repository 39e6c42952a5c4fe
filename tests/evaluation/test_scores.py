"""The comparison with the baselines, on images with known results."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from noneg.commands.evaluate import evaluate_run
from noneg.encoder import Encoder, EncoderInfo
from noneg.errors import NonegError
from noneg.evaluation.scores import (
    Score,
    compare,
    format_table,
    scores_as_dict,
    split_for_evaluation,
    untrained,
)
from noneg.files import write_json
from noneg.images import Images
from noneg.networks.backbones import SMALL_RESNET
from noneg.records.directory import RunDirectory
from noneg.training.build import build_method
from noneg.training.config import make_config, to_dict
from noneg.training.knn_monitor import KNNMonitor
from noneg.training.plan import plan_of


class Corner(nn.Module):
    """Sees only the color of the top left pixel."""

    def forward(self, images: Tensor) -> Tensor:
        return images[:, :, 0, 0]


class Blind(nn.Module):
    """Collapsed: the same features for every image."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.ones(len(images), 3)


def information(features: int = 3) -> EncoderInfo:
    return EncoderInfo(
        SMALL_RESNET, 3, 8, 8, mean=(0.5,) * 3, std=(0.25,) * 3, features=features, method="test"
    )


def corner_images(images: int, seed: int, classes: tuple[str, ...] = ("red", "green")) -> Images:
    """Noise, except that the color of the top left pixel is the class."""
    generator = np.random.default_rng(seed)
    labels = np.arange(images) % len(classes)
    pixels = 255 * generator.integers(0, 2, (images, 3, 8, 8), dtype=np.uint8)
    names = ("red", "green", "blue")
    for index, label in enumerate(labels):
        pixels[index, :, 0, 0] = 0
        pixels[index, names.index(classes[label]), 0, 0] = 255
    return Images(
        pixels,
        tuple(f"{index}.png" for index in range(images)),
        labels,
        classes,
        (),
        "folder corners",
        {"brightness": pixels.mean(axis=(1, 2, 3))},
    )


def test_scores_of_a_seeing_and_of_a_blind_encoder() -> None:
    bank, test = corner_images(400, 1), corner_images(200, 2)
    scores = compare(
        Encoder(Corner(), information()),
        Encoder(Blind(), information()),
        bank,
        test,
        progress=False,
    )
    assert [score.features for score in scores] == ["trained", "untrained", "pixels", "patches"]
    assert [score.dimensions for score in scores] == [3, 3, 192, 3]
    trained, start, pixels, patches = scores
    assert patches.unreduced is not None
    assert patches.unreduced.dimensions == 1600
    assert trained.unreduced is None
    assert (trained.knn, trained.linear) == (1.0, 1.0)
    assert (start.knn, start.linear) == (0.5, 0.5)
    # One of 64 pixels: a plane finds it, a distance hardly.
    assert 0.5 < pixels.knn < 0.95
    assert pixels.linear > 0.95


def test_raw_pixels_are_centered_by_the_bank() -> None:
    # Gray images with different amounts of one pattern, 0 on average. Seen from the mean, a class
    # is a direction. Seen from black, the 5 faint images of class 0 are nearer to class 1 than to
    # the 20 strong images of class 0, and 20 neighbors vote.
    strengths = np.repeat([10, 60, -10], [5, 20, 125])
    test_strengths = np.repeat([10, -10], 10)
    bank, test = (
        Images(patterned(chosen), ("",) * len(chosen), (chosen < 0) * 1, None, (), "array", None)
        for chosen in (strengths, test_strengths)
    )
    encoder = Encoder(Blind(), information())
    assert compare(encoder, encoder, bank, test, progress=False)[2].knn_raw == 1.0


def patterned(strengths: np.ndarray) -> np.ndarray:
    stripes = np.tile([1, -1], 4)
    images = 128 + strengths[:, None, None, None] * stripes + np.zeros((1, 3, 8, 8), dtype=np.int64)
    return images.astype(np.uint8)


def test_classes_are_matched_by_name() -> None:
    bank = corner_images(90, 4, ("red", "green", "blue"))
    # This folder has no red: its label 0 is green.
    test = corner_images(40, 5, ("green", "blue"))
    encoder = Encoder(Corner(), information())
    assert compare(encoder, encoder, bank, test, progress=False)[0].knn == 1.0
    # A class that is not in the bank is always wrong.
    lacking = corner_images(60, 6, ("red", "green"))
    partly = corner_images(40, 7, ("green", "blue"))
    assert compare(encoder, encoder, lacking, partly, progress=False)[0].knn == 0.5
    with pytest.raises(NonegError, match="no class in common"):
        compare(encoder, encoder, bank, replace_classes(test, ("cat", "dog")), progress=False)


def test_monitor_and_scores_agree(tmp_path: Path) -> None:
    bank, test = corner_images(80, 13), corner_images(40, 14)
    plan = plan_of(make_config("x", backbone=SMALL_RESNET, channels=3, size=8, batch_size=8))
    method, info = build_method(plan), information(256)
    run = RunDirectory(tmp_path)
    KNNMonitor(run, (bank, test), info, most=10_000).measure(1, 1, 8, method, torch.device("cpu"))
    encoder = Encoder(method.backbone, info)
    score = compare(encoder, encoder, bank, test)[0]
    assert [float(row["knn"]) for row in run.knn.read()] == [pytest.approx(score.knn, abs=1e-4)]
    assert score.knn != score.knn_raw


def replace_classes(images: Images, classes: tuple[str, ...]) -> Images:
    return Images(images.pixels, images.names, images.labels, classes, (), images.description, None)


def test_a_sample_of_sorted_images_has_all_classes() -> None:
    images = corner_images(300, 8)
    order = np.argsort(images.labels, kind="stable")
    assert images.labels is not None
    ordered = Images(
        images.pixels[order], images.names, images.labels[order], images.classes, (), "sorted", None
    )
    encoder = Encoder(Corner(), information())
    score = compare(encoder, encoder, ordered, ordered, most=50, progress=False)[0]
    assert score.knn == 1.0
    # Of 50 test images all accuracies are multiples of 0.02.
    pixels = compare(encoder, encoder, ordered, images, most=50, progress=False)[2]
    assert (50 * pixels.knn) == pytest.approx(round(50 * pixels.knn))


def test_the_split_is_stratified_and_without_overlap() -> None:
    images = corner_images(100, 9)
    bank, test = split_for_evaluation(images, seed=1)
    assert (len(bank.pixels), len(test.pixels)) == (80, 20)
    assert set(bank.names) | set(test.names) == set(images.names)
    assert not set(bank.names) & set(test.names)
    assert images.labels is not None
    for part in (bank, test):
        assert part.labels is not None
        assert part.factors is not None
        assert part.labels.mean() == 0.5
        for row, name in enumerate(part.names):
            origin = images.names.index(name)
            assert np.array_equal(part.pixels[row], images.pixels[origin])
            assert part.labels[row] == images.labels[origin]
        assert np.array_equal(part.factors["brightness"], part.pixels.mean(axis=(1, 2, 3)))
    assert split_for_evaluation(images, seed=1)[1].names == test.names
    assert split_for_evaluation(images, seed=2)[1].names != test.names
    assert len(split_for_evaluation(images, most=7)[0].names) == 7


def test_images_without_labels_are_named() -> None:
    images = corner_images(40, 10)
    unlabeled = Images(images.pixels, images.names, None, None, (), "folder plain", None)
    encoder = Encoder(Corner(), information())
    with pytest.raises(NonegError, match="folder plain has no labels"):
        compare(encoder, encoder, images, unlabeled, progress=False)
    with pytest.raises(NonegError, match="folder plain needs labels"):
        split_for_evaluation(unlabeled)


def test_the_untrained_encoder_depends_only_on_the_seed() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    encoder = Encoder(Blind(), information(256))
    first = untrained(encoder, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    second, other = untrained(encoder, seed=5), untrained(encoder, seed=6)
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    assert np.array_equal(first.embed(images), second.embed(images))
    assert not np.allclose(first.embed(images), other.embed(images))


SCORES = [
    Score("trained", 0.40567, 0.5, 256, 0.375),
    Score("pixels", 1.0, 0.03449, 3072, 0.25, unreduced=Score("", 0.5, 0.625, 9999, 0.125)),
]


def test_the_table_is_aligned() -> None:
    assert format_table(SCORES).splitlines() == [
        "features     kNN  linear  dimensions",
        "trained    40.6%   50.0%         256",
        "pixels    100.0%    3.4%       3,072",
    ]


def test_scores_are_saved_as_json(tmp_path: Path) -> None:
    write_json(tmp_path / "scores.json", scores_as_dict(SCORES))
    assert json.loads((tmp_path / "scores.json").read_text()) == {
        "trained": {"knn": 0.40567, "linear": 0.5, "dimensions": 256, "knn_raw": 0.375},
        "pixels": {
            "knn": 1.0,
            "linear": 0.03449,
            "dimensions": 3072,
            "knn_raw": 0.25,
            "unreduced": {"knn": 0.5, "linear": 0.625, "dimensions": 9999, "knn_raw": 0.125},
        },
    }
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(NonegError, match="cannot be written"):
        write_json(tmp_path / "nowhere" / "scores.json", {})


def save_npz(path: Path, images: Images) -> str:
    np.savez(path, images=images.pixels.transpose(0, 2, 3, 1), labels=images.labels)
    return str(path)


def test_a_saved_run_is_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    untrained(Encoder(Blind(), information(256)), seed=3).save(run / "encoder")
    config = make_config("gone", seed=3, backbone=SMALL_RESNET, channels=3, size=8, batch_size=8)
    RunDirectory(run).write_config(to_dict(config))
    data = save_npz(tmp_path / "test.npz", corner_images(100, 11))
    bank = save_npz(tmp_path / "bank.npz", corner_images(150, 12))
    scores = evaluate_run(run, data, bank=bank, out=tmp_path / "scores.json").scores
    # The encoder was never trained, so it is its own baseline.
    assert (scores[0].knn, scores[0].linear) == (scores[1].knn, scores[1].linear)
    printed = capsys.readouterr().out
    assert format_table(scores) in printed
    assert json.loads((tmp_path / "scores.json").read_text())["pixels"]["knn"] == scores[2].knn
    # Without a bank the data is split, with 20 test images.
    split = evaluate_run(run, data).scores
    assert "four fifths" in capsys.readouterr().out
    assert 20 * split[2].knn == pytest.approx(round(20 * split[2].knn))
    with pytest.raises(NonegError, match="find itself"):
        evaluate_run(run, data, bank=data)
