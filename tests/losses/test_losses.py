"""Losses against independent float64 transcriptions of the papers' formulas, and closed forms."""

import numpy as np
import pytest
import torch

from noneg.errors import NonegError
from noneg.losses import (
    barlow_twins,
    mean_squared_error,
    negative_cosine,
    nt_xent,
    spectral_contrastive,
    vicreg,
    w_mse,
)
from noneg.losses.gram import covariance_energy

SIZES = [(2, 1), (2, 5), (7, 3), (16, 16), (17, 16), (16, 17), (8, 40), (40, 8)]


def random_views(batch: int, width: int, views: int = 2, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(views, batch, width, generator=generator, dtype=torch.float64)


def vicreg_of_the_paper(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Equations 1 to 5, entry by entry, with the authors' means instead of two of the sums."""
    batch, width = a.shape
    invariance = sum(float(((a[i] - b[i]) ** 2).sum()) for i in range(batch)) / batch / width

    def variance(z: np.ndarray) -> float:
        return (
            sum(max(0.0, 1 - np.sqrt(np.var(z[:, j], ddof=1) + 1e-4)) for j in range(width)) / width
        )

    def covariance(z: np.ndarray) -> float:
        mean = z.mean(axis=0)
        matrix = sum(np.outer(row - mean, row - mean) for row in z) / (batch - 1)
        return sum(matrix[i, j] ** 2 for i in range(width) for j in range(width) if i != j) / width

    return {
        "invariance": 25 * invariance,
        "variance_1": 25 * variance(a) / 2,
        "covariance_1": covariance(a),
        "variance_2": 25 * variance(b) / 2,
        "covariance_2": covariance(b),
    }


def barlow_twins_of_the_paper(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Equations 1 and 2, with BatchNorm's epsilon in the standard deviations."""
    batch, width = a.shape
    a = (a - a.mean(axis=0)) / np.sqrt(a.var(axis=0) + 1e-5)
    b = (b - b.mean(axis=0)) / np.sqrt(b.var(axis=0) + 1e-5)
    correlation = np.zeros((width, width))
    for i in range(width):
        for j in range(width):
            correlation[i, j] = (a[:, i] * b[:, j]).sum() / batch
    off = sum(correlation[i, j] ** 2 for i in range(width) for j in range(width) if i != j)
    return {
        "invariance": sum((1 - correlation[i, i]) ** 2 for i in range(width)),
        "redundancy": 5e-3 * off,
    }


@pytest.mark.parametrize(("batch", "width"), SIZES)
def test_vicreg_is_the_papers(batch: int, width: int) -> None:
    z = random_views(batch, width) + 0.5
    expected = vicreg_of_the_paper(*z.numpy())
    actual = vicreg(z)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert float(actual[name]) == pytest.approx(value, rel=1e-10, abs=1e-12), name


@pytest.mark.parametrize(("batch", "width"), SIZES)
def test_barlow_twins_is_the_papers(batch: int, width: int) -> None:
    z = random_views(batch, width) * 3 - 1
    expected = barlow_twins_of_the_paper(*z.numpy())
    actual = barlow_twins(z)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert float(actual[name]) == pytest.approx(value, rel=1e-10, abs=1e-12), name


def test_vicreg_of_zeros_tells_the_convention() -> None:
    terms = vicreg(torch.zeros(2, 8, 4, dtype=torch.float64))
    assert float(sum(terms.values())) == pytest.approx(24.75, abs=1e-12)


def test_vicreg_of_whitened_identical_views_is_zero() -> None:
    centered = random_views(12, 5)[0]
    whitened = torch.linalg.qr(centered - centered.mean(0))[0] * np.sqrt(11) * 2
    for name, value in vicreg(torch.stack([whitened, whitened])).items():
        assert abs(float(value)) < 1e-20, name


def test_barlow_twins_of_whitened_identical_views_is_zero() -> None:
    centered = random_views(12, 5)[0]
    whitened = torch.linalg.qr(centered - centered.mean(0))[0] * np.sqrt(12)
    terms = barlow_twins(torch.stack([whitened, whitened]), epsilon=0.0)
    assert float(sum(terms.values())) < 1e-20


@pytest.mark.parametrize("loss", [vicreg, barlow_twins])
@pytest.mark.parametrize("views", [2, 3, 4])
def test_more_views_average_over_pairs(loss: object, views: int) -> None:
    z = random_views(9, 6, views)
    pairs = [
        sum(loss(torch.stack([z[a], z[b]])).values())  # type: ignore[operator]
        for a in range(views)
        for b in range(a + 1, views)
    ]
    whole = sum(loss(z).values())  # type: ignore[operator]
    assert float(whole) == pytest.approx(float(sum(pairs)) / len(pairs), rel=1e-12)


def test_barlow_twins_ignores_scale_and_shift_of_each_coordinate() -> None:
    z = random_views(20, 6)
    scale = torch.linspace(0.5, 3, 6, dtype=torch.float64)
    moved = z * scale + torch.arange(6, dtype=torch.float64)
    for name, value in barlow_twins(z, epsilon=0.0).items():
        assert float(barlow_twins(moved, epsilon=0.0)[name]) == pytest.approx(float(value))


@pytest.mark.parametrize("loss", [vicreg, barlow_twins])
@pytest.mark.parametrize(("batch", "width"), [(9, 6), (6, 9)])
def test_permuting_images_coordinates_or_views_changes_nothing(
    loss: object, batch: int, width: int
) -> None:
    z = random_views(batch, width)
    for moved in (z[:, torch.randperm(batch)], z[:, :, torch.randperm(width)]):
        for name, value in loss(z).items():  # type: ignore[operator]
            assert float(loss(moved)[name]) == pytest.approx(float(value))  # type: ignore[operator]
    swapped = loss(z.flip(0))  # type: ignore[operator]
    for name, value in loss(z).items():  # type: ignore[operator]
        other = name.translate(str.maketrans("12", "21"))
        assert float(swapped[other]) == pytest.approx(float(value)), name


def test_vicreg_ignores_shifts_and_rotation_keeps_its_invariance_alone() -> None:
    z = random_views(20, 6)
    for name, value in vicreg(z + torch.arange(6, dtype=torch.float64)).items():
        assert float(value) == pytest.approx(float(vicreg(z)[name])), name
    rotation = torch.linalg.qr(random_views(6, 6, seed=1)[0])[0]
    turned, terms = vicreg(z @ rotation), vicreg(z)
    assert float(turned["invariance"]) == pytest.approx(float(terms["invariance"]))
    # The whole covariance matrix keeps its norm; its share on the diagonal changes.
    assert float(turned["covariance_1"]) != pytest.approx(float(terms["covariance_1"]), rel=1e-3)
    centered = z[0] - z[0].mean(0)
    (before, off), (after, off_after) = (
        (each.square().sum(), energy)
        for each, energy in (
            (squares[0], energies[0])
            for squares, energies in (
                covariance_energy(centered[None]),
                covariance_energy((centered @ rotation)[None]),
            )
        )
    )
    assert float(before + off) == pytest.approx(float(after + off_after))


def test_limits() -> None:
    """Collapsed to a point, to a line, and far spread."""
    line = random_views(12, 1).expand(2, 12, 5)
    terms = barlow_twins(line[:1].expand(2, 12, 5), epsilon=0.0)
    assert float(terms["invariance"]) == pytest.approx(0, abs=1e-20)
    assert float(terms["redundancy"]) == pytest.approx(5e-3 * 5 * 4)
    point = torch.full((2, 12, 5), 3.0, dtype=torch.float64)
    assert float(sum(barlow_twins(point).values())) == pytest.approx(5)
    assert float(sum(vicreg(point).values())) == pytest.approx(24.75)
    spread = vicreg(random_views(12, 5) * 1e3)
    assert float(spread["variance_1"]) == float(spread["variance_2"]) == 0


def test_weights_are_factors_of_their_own_terms() -> None:
    z = random_views(9, 6)
    weighted = vicreg(z, invariance=2.0, variance=3.0, covariance=5.0)
    unit = vicreg(z, invariance=1.0, variance=1.0, covariance=1.0)
    for name, value in unit.items():
        factor = {"i": 2, "v": 3, "c": 5}[name[0]]
        assert float(weighted[name]) == pytest.approx(factor * float(value)), name
    for name, value in barlow_twins(z, invariance=2.0, redundancy=3.0).items():
        one = barlow_twins(z, invariance=1.0, redundancy=1.0)[name]
        assert float(value) == pytest.approx({"i": 2, "r": 3}[name[0]] * float(one)), name


@pytest.mark.parametrize("loss", [vicreg, barlow_twins, nt_xent, spectral_contrastive, w_mse])
def test_one_image_or_one_view_is_refused_in_a_sentence(loss: object) -> None:
    with pytest.raises(NonegError, match="needs a batch of at least 2 images, not 1"):
        loss(torch.zeros(2, 1, 4))  # type: ignore[operator]
    with pytest.raises(NonegError, match="needs at least 2, not 1"):
        loss(torch.zeros(1, 8, 4))  # type: ignore[operator]


def test_mean_squared_error() -> None:
    z = random_views(5, 3, views=3)
    expected = np.mean([((z[a] - z[b]) ** 2).mean() for a, b in [(0, 1), (0, 2), (1, 2)]])
    assert float(mean_squared_error(z)) == pytest.approx(float(expected))


def test_negative_cosine_with_targets_of_the_first_views_alone() -> None:
    p, t = random_views(5, 3, views=4, seed=1), random_views(5, 3, views=2, seed=2)
    pairs = [(v, w) for v in range(4) for w in range(2) if v != w]
    cosines = [torch.nn.functional.cosine_similarity(p[v], t[w]).mean() for v, w in pairs]
    assert float(negative_cosine(p, t)) == pytest.approx(-float(torch.stack(cosines).mean()))


def test_negative_cosine_limits_and_pairs() -> None:
    z = random_views(5, 3, views=3)
    same = z[:1].expand(3, 5, 3)
    assert float(negative_cosine(same, same)) == pytest.approx(-1)
    assert float(negative_cosine(same, -same)) == pytest.approx(1)
    p, t = random_views(5, 3, views=3, seed=1), random_views(5, 3, views=3, seed=2)
    cosines = []
    for v in range(3):
        for w in range(3):
            if v != w:
                for i in range(5):
                    a, b = p[v, i].numpy(), t[w, i].numpy()
                    cosines.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert float(negative_cosine(p, t)) == pytest.approx(-float(np.mean(cosines)))
