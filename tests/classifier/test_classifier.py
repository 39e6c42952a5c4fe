"""Probe, fine-tuning, calibration and label curves, against definitions and on tiny images."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pixel_encoder import pixel_encoder
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from conftest import TinyBackbone
from noneg.classifier.classifier import Classifier, load_classifier
from noneg.classifier.curve import format_curve, label_curve
from noneg.classifier.fit import calibration_error, fine_tuned_accuracy, fit_classifier, fit_probe
from noneg.cli import main
from noneg.encoder import Encoder
from noneg.errors import NonegError
from noneg.images import find_source, load_images
from noneg.images.load import Images
from untrained_encoders import describe, untrained_encoder


def blobs(per_class: int = 30, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), per_class)
    centers = 3 * np.eye(8)[:classes]
    points = centers[labels] + random.normal(size=(len(labels), 8))
    return (points * [1, 100, 1, 1, 0.01, 1, 1, 1] + 50).astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 3])
def test_the_probe_is_scikit_learns_on_standardized_features(classes: int) -> None:
    points, labels = blobs(classes=classes)
    weight, bias = fit_probe(points, labels, 0.1)
    scaler = StandardScaler().fit(points)
    model = LogisticRegression(C=0.1, class_weight="balanced", max_iter=500)
    model.fit(scaler.transform(points), labels)
    expected = model.predict_proba(scaler.transform(points))
    found = (torch.from_numpy(points) @ weight.T + bias).softmax(dim=1).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_a_constant_feature_does_not_matter() -> None:
    points, labels = blobs()
    constant = np.concatenate([points, np.full((len(points), 1), 7, np.float32)], axis=1)
    weight, bias = fit_probe(constant, labels, 0.1)
    assert (weight[:, -1] == 0).all()
    assert torch.isfinite(bias).all()


def test_classes_count_alike_however_many_images_they_have() -> None:
    random = np.random.default_rng(0)
    points = np.concatenate([random.normal(0, 1, (990, 1)), random.normal(1.5, 1, (10, 1))])
    labels = np.repeat([0, 1], [990, 10])
    weight, bias = fit_probe(points.astype(np.float32), labels, 1.0)
    boundary = float((bias[0] - bias[1]) / (weight[1] - weight[0])[0])
    # In the middle of the two means; without weights it would be beyond 3.
    assert boundary == pytest.approx(0.75, abs=0.4)


def test_the_calibration_error_of_known_confidences() -> None:
    confidence = torch.tensor([0.95] * 10 + [0.65] * 10)
    right = torch.tensor([1.0] * 9 + [0.0] + [1.0] * 5 + [0.0] * 5)
    assert calibration_error(confidence, right) == pytest.approx((0.05 + 0.15) / 2, abs=1e-6)
    assert calibration_error(torch.full((4,), 1.0), torch.ones(4)) == pytest.approx(0)


def colored(count: int, seed: int = 0, noise: float = 60.0) -> Images:
    """Images of three classes that differ in color."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    base = np.array([[150, 110, 110], [110, 150, 110], [110, 110, 150]])[labels]
    pixels = base[:, None, None] + random.normal(0, noise, (count, 32, 32, 3))
    array = np.clip(pixels, 0, 255).astype(np.uint8)
    return load_images(find_source(array, labels=labels), channels=3, size=32)


def test_the_probe_alone_keeps_the_encoder() -> None:
    encoder = pixel_encoder()
    fitted = fit_classifier(encoder, colored(60), epochs=0)
    assert fitted.best is fitted.last
    assert fitted.best.encoder is encoder
    assert fitted.best.validation["accuracy"] == 1
    assert fitted.best.classes == ("0", "1", "2")
    test = colored(30, seed=1)
    predicted = np.concatenate(
        [
            p.argmax(axis=1)
            for _, p in fitted.best.predict(np.asarray(test.pixels).transpose(0, 2, 3, 1))
        ]
    )
    assert (predicted == test.labels).mean() > 0.95


def tiny_encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(TinyBackbone(), describe("tiny", features=16))


class Striped:
    """Two classes that differ in the direction of fine stripes, which a random network mixes up."""

    @staticmethod
    def images(count: int, seed: int) -> Images:
        random = np.random.default_rng(seed)
        labels = np.arange(count) % 2
        place = np.arange(32)
        pixels = []
        for label in labels:
            wave = np.sin(place * 1.2 + random.uniform(0, 6))[None, :].repeat(32, axis=0)
            wave = wave.T if label else wave
            pixels.append(128 + 50 * wave[..., None] + random.normal(0, 60, (32, 32, 3)))
        array = np.clip(np.stack(pixels), 0, 255).astype(np.uint8)
        return load_images(find_source(array, labels=labels), channels=3, size=32)


def test_fine_tuning_begins_with_the_probe_and_the_best_is_kept() -> None:
    encoder = tiny_encoder()
    before = {name: value.clone() for name, value in encoder.module.state_dict().items()}
    fitted = fit_classifier(encoder, Striped.images(120, 0), epochs=3)
    assert all((value == before[name]).all() for name, value in encoder.module.state_dict().items())
    assert fitted.last.validation["epoch"] == 3
    moved = fitted.last.encoder.module.state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in moved.items())
    best, last = fitted.best.validation, fitted.last.validation
    assert best["accuracy"] >= max(last["accuracy"], last["probe_accuracy"])
    # The backbone has moved by a few small steps only.
    distance = sum(float((moved[n] - before[n]).square().sum()) for n in before) ** 0.5
    size = sum(float(value.square().sum()) for value in before.values()) ** 0.5
    assert distance < 0.05 * size


def test_the_temperature_makes_confidence_right() -> None:
    encoder = pixel_encoder()
    images = colored(300, noise=900.0)
    facts = fit_classifier(encoder, images, epochs=0).best.validation
    assert facts["calibration_error"] <= facts["calibration_error_before"] + 0.02
    assert abs(facts["mean_confidence"] - facts["accuracy"]) < 0.12


def saved(tmp_path: Path) -> Path:
    untrained_encoder().save(tmp_path / "encoder")
    return tmp_path / "encoder"


def test_a_classifier_survives_the_disk_and_damage_is_one_sentence(tmp_path: Path) -> None:
    import noneg

    encoder = noneg.load(saved(tmp_path))
    fitted = fit_classifier(encoder, colored(45), epochs=0).best
    place = tmp_path / "classifier"
    fitted.save(place)
    again = load_classifier(place)
    images = np.asarray(colored(9, seed=2).pixels).transpose(0, 2, 3, 1)
    (_, one), (_, two) = next(fitted.predict(images)), next(again.predict(images))
    np.testing.assert_allclose(one, two, atol=1e-6)
    assert again.validation == fitted.validation
    # It is an encoder as well, and one module for exports.
    assert noneg.load(place).info.features == encoder.info.features
    assert isinstance(again.module(), nn.Module)
    whole = (place / "classifier.json").read_text()
    for damaged in (
        "{}",
        "no json",
        whole.replace('"temperature": ', '"temperature": -'),
        whole.replace('"format": 1', '"format": 9'),
        json.dumps({**json.loads(whole), "classes": ["one"]}),
        json.dumps({**json.loads(whole), "classes": 3}),
    ):
        (place / "classifier.json").write_text(damaged)
        with pytest.raises(NonegError):
            load_classifier(place)
    with pytest.raises(NonegError, match="no classifier"):
        load_classifier(tmp_path / "encoder")


def test_the_commands_from_labels_to_predictions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    encoder, photos = saved(tmp_path), tmp_path / "photos"
    photos.mkdir()
    images = colored(30)
    for number, pixels in enumerate(np.asarray(images.pixels)):
        Image.fromarray(pixels.transpose(1, 2, 0)).save(photos / f"{number:02}.png")
    (photos / "broken.png").write_bytes(b"no picture")
    assert images.labels is not None
    rows = [f"{number:02}.png,{'rgb'[label]}" for number, label in enumerate(images.labels[:24])]
    (tmp_path / "labels.csv").write_text("\n".join(["name,label", *rows]) + "\n")
    place, out = tmp_path / "classifier", tmp_path / "found.csv"
    arguments = ["finetune", str(encoder), str(photos), "--labels", str(tmp_path / "labels.csv")]
    assert main([*arguments, "--epochs", "1", "--out", str(place)]) == 0
    assert "held-out images" in capsys.readouterr().out
    assert load_classifier(place / "last").classes == ("b", "g", "r")
    assert main(["predict", str(place), str(photos), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "30 predictions" in printed.out
    assert "broken.png" in printed.err
    found = [line.split(",") for line in out.read_text().splitlines()[1:]]
    right = sum(row[1] == "rgb"[label] for row, label in zip(found, images.labels, strict=True))
    assert right >= 27
    # Nothing is overwritten.
    assert main([*arguments, "--out", str(place)]) == 2
    assert "already" in capsys.readouterr().err
    curve = ["curve", *arguments[1:], "--seeds", "2", "--out", str(tmp_path / "curve.json")]
    curve += ["--epochs", "1"]
    assert main(curve) == 0
    assert "labels a class" in capsys.readouterr().out
    points = json.loads((tmp_path / "curve.json").read_text())["points"]
    assert {point["features"] for point in points} == {
        "trained",
        "untrained",
        "patches",
        "fine-tuned",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["finetune", "{encoder}", "shapes.npy", "--out", "{out}"], "not found"),
        (["finetune", "{encoder}", "{flat}", "--out", "{out}"], "no labels"),
        (["finetune", "{encoder}", "{flat}", "--labels", "{csv}", "--out", "{out}"], "two classes"),
        (["finetune", "{encoder}", "shapes", "--epochs", "-1", "--out", "{out}"], "--epochs"),
        (["predict", "{encoder}", "shapes", "--out", "{out}"], "no classifier"),
        (["curve", "{encoder}", "{flat}"], "no labels"),
        (["curve", "{encoder}", "{flat}", "--seeds", "0"], "--seeds"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "flat.npy", np.zeros((12, 32, 32, 3), np.uint8))
    (tmp_path / "one.csv").write_text("name,label\n" + "".join(f"{n},a\n" for n in range(6)))
    places = {
        "encoder": saved(tmp_path),
        "flat": tmp_path / "flat.npy",
        "csv": tmp_path / "one.csv",
        "out": tmp_path / "out",
    }
    assert main([each.format(**places) for each in arguments]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert message in errors[0]
    assert not (tmp_path / "out").exists()


def test_the_label_curve_rises_and_all_features_get_the_same_labels() -> None:
    bank, bank_labels = blobs(80)
    test, test_labels = blobs(60, seed=1)
    noise = np.random.default_rng(0).normal(size=bank.shape).astype(np.float32)
    points = label_curve(
        {"good": bank, "noise": noise},
        bank_labels,
        {"good": test, "noise": noise[: len(test)]},
        test_labels,
    )
    good = [point for point in points if point.features == "good"]
    assert [point.per_class for point in good] == [1, 5, 10, 50, None]
    assert [point.labels for point in good] == [3, 15, 30, 150, 240]
    means = [point.mean for point in good]
    assert means[0] < means[2] <= means[4] + 0.01
    assert means[4] > 0.9
    assert good[0].interval > good[3].interval > 0
    assert good[4].interval == 0
    assert all(abs(each.mean - 1 / 3) < 0.15 for each in points if each.features == "noise")
    assert "all" in format_curve(points)


def test_other_learners_get_the_same_labels_as_the_probes() -> None:
    bank, bank_labels = blobs(30)
    test, test_labels = blobs(20, seed=1)
    given: list[tuple[list[int], int]] = []

    def learn(chosen: np.ndarray, targets: np.ndarray, wanted: np.ndarray, seed: int) -> float:
        assert (bank_labels[chosen] == targets).all()
        assert (wanted == test_labels).all()
        given.append((sorted(chosen), seed))
        return len(chosen) / 100

    points = label_curve(
        {"good": bank}, bank_labels, {"good": test}, test_labels, seeds=2, others={"own": learn}
    )
    own = [point for point in points if point.features == "own"]
    assert [point.accuracies for point in own] == [(0.03,) * 2, (0.15,) * 2, (0.3,) * 2, (0.9,)]
    assert [seed for _, seed in given] == [0, 1] * 3 + [0]
    assert given[0][0] != given[1][0]


def test_fine_tuning_on_all_labels_learns_what_the_probe_cannot() -> None:
    encoder = tiny_encoder()
    train, test = Striped.images(12, 0), Striped.images(60, 1)
    assert train.labels is not None
    assert test.labels is not None
    parts = [(np.asarray(each.pixels), each.labels) for each in (train, test)]
    weight, bias = fit_probe(encoder.embed_pixels(parts[0][0]), train.labels, 0.1)
    logits = torch.from_numpy(encoder.embed_pixels(parts[1][0])) @ weight.T + bias
    before = float((logits.argmax(dim=1).numpy() == test.labels).mean())
    weights = [each.clone() for each in encoder.module.parameters()]
    after = fine_tuned_accuracy(encoder, *parts, epochs=30)
    assert after > before + 0.05
    assert all(map(torch.equal, weights, encoder.module.parameters()))


def test_the_interval_is_students() -> None:
    from noneg.classifier.curve import Point

    point = Point("x", 1, 3, (0.4, 0.5, 0.6))
    # t at 97.5 % for 2 degrees of freedom is 4.303; the standard error 0.1 / sqrt(3).
    assert point.interval == pytest.approx(4.303 * 0.1 / 3**0.5, rel=1e-3)


def test_probabilities_are_those_of_the_module() -> None:
    encoder = tiny_encoder()
    weight, bias = torch.randn(3, 16), torch.randn(3)
    classifier = Classifier(encoder, weight, bias, ("a", "b", "c"), temperature=2.5)
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        h = encoder.module(images)
        expected = ((h @ weight.T + bias) / 2.5).softmax(dim=1)
        np.testing.assert_allclose(classifier.module()(images).softmax(1), expected, atol=1e-6)
    np.testing.assert_allclose(classifier.probabilities(h.numpy()), expected, atol=1e-6)
