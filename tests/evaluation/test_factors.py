"""The readout finds factors that were put into embeddings, and nothing in noise."""

import numpy as np
import pytest

from noneg.evaluation.factors import Readout, read_factors
from noneg.report.sections.factors import factors_section

N = 1_000


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N, 32)).astype(np.float32)


def read(factor: str, values: np.ndarray, trained: np.ndarray, untrained: np.ndarray) -> Readout:
    return read_factors({factor: values}, trained, untrained)[0]


def test_a_planted_number_is_read_and_noise_gives_chance(noise: np.ndarray) -> None:
    values = np.random.default_rng(1).uniform(0.4, 0.6, N)
    planted = noise.copy()
    planted[:, 5] += 30 * (values - 0.5).astype(np.float32)
    found = read("contrast", values, planted, noise)
    assert (found.kind, found.chance) == ("number", 0)
    # Signal 30^2 * 0.2^2 / 12 = 3 against noise 1: R2 is 3/4.
    assert found.trained == pytest.approx(0.75, abs=0.06)
    assert abs(found.untrained) < 0.06


def test_an_angle_is_read_through_its_sine_and_cosine(noise: np.ndarray) -> None:
    values = np.random.default_rng(2).uniform(0, 360, N)
    planted = noise.copy()
    planted[:, 3] = np.cos(np.deg2rad(values))
    planted[:, 4] = np.sin(np.deg2rad(values))
    found = read("background_hue", values, planted, noise)
    assert found.kind == "circle"
    assert found.trained > 0.99
    assert abs(found.untrained) < 0.06
    # The same numbers, under the name of a factor that is not an angle, are not linear in them.
    assert read("some_number", values, planted, noise).trained < 0.8


def test_stripes_look_alike_after_half_a_turn(noise: np.ndarray) -> None:
    values = np.random.default_rng(3).uniform(0, 360, N)
    planted = noise.copy()
    planted[:, 3] = np.cos(np.deg2rad(2 * values))
    planted[:, 4] = np.sin(np.deg2rad(2 * values))
    assert read("foreground_angle", values, planted, noise).trained > 0.99
    assert abs(read("light_direction", values, planted, noise).trained) < 0.06


def test_classes_are_scored_by_accuracy_against_the_most_frequent_class(noise: np.ndarray) -> None:
    values = np.random.default_rng(4).choice(4, N, p=[0.4, 0.2, 0.2, 0.2])
    planted = noise.copy()
    planted[:, :4] += 6 * np.eye(4, dtype=np.float32)[values]
    found = read("background_texture", values, planted, noise)
    assert found.kind == "class"
    assert found.trained > 0.97
    assert found.chance == pytest.approx(0.4, abs=0.06)
    assert found.untrained == pytest.approx(found.chance, abs=0.08)
    assert found.kept(found.chance) == 0
    assert found.kept(1.0) == 1


def test_copies_are_averaged_constants_left_out_and_labels_read(noise: np.ndarray) -> None:
    generator = np.random.default_rng(5)
    planted = noise.copy()
    sizes = generator.uniform(0.3, 0.5, (2, N))
    planted[:, 0] = sizes[0]
    labels = generator.integers(0, 2, N)
    factors = {"size_1": sizes[0], "size_2": sizes[1], "fixed": np.ones(N)}
    found = {each.title: each for each in read_factors(factors, planted, noise, labels=labels)}
    assert set(found) == {"size (mean of 2 copies)", "class"}
    assert found["size (mean of 2 copies)"].trained == pytest.approx(0.5, abs=0.05)


def test_a_collapsed_encoder_gives_chance(noise: np.ndarray) -> None:
    values = np.random.default_rng(6).uniform(0, 1, N)
    found = read("contrast", values, np.full((N, 32), 0.3, dtype=np.float32), noise)
    assert found.trained == pytest.approx(0, abs=0.02)


def test_the_section_lists_what_was_kept_and_what_was_lost() -> None:
    html = factors_section(
        [
            Readout("class", "class", 0.8, 0.2, 0.1),
            Readout("hue", "circle", 0.01, 0.7, 0.0),
            Readout("noise", "number", 0.0, -0.01, 0.0),
        ]
    ).html()
    assert "Kept: <b>class</b>. Thrown away in training: <b>hue</b>." in html
    assert "1 factor at chance" in html
