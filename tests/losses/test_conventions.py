"""Translated weights give the other convention's loss, transcribed here from its own formula."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from scipy.stats import norm
from test_contract import build, make_views

from noneg.errors import NonegError
from noneg.losses import (
    barlow_twins,
    barlow_twins_weights,
    byol_weight,
    distance_to_mean,
    lejepa_weights,
    negative_cosine,
    sigreg,
    simdino,
    simdino_distortion,
    vicreg,
    vicreg_weights,
    visreg,
    visreg_weights,
    w_mse,
    w_mse_weight,
)

Weights = tuple[float, float, float]


def random_views(batch: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 0.7 * torch.randn(2, batch, width, generator=generator, dtype=torch.float64)


def hinge(z: np.ndarray) -> float:
    return float(np.maximum(0, 1 - np.sqrt(z.var(axis=0, ddof=1) + 1e-4)).mean())


def off_diagonal_squares(z: np.ndarray) -> np.ndarray:
    covariance = np.cov(z.T)
    return covariance[~np.eye(z.shape[1], dtype=bool)] ** 2


def authors_vicreg(a: np.ndarray, b: np.ndarray, weights: Weights) -> float:
    covariance = sum(off_diagonal_squares(z).sum() / z.shape[1] for z in (a, b))
    variance = (hinge(a) + hinge(b)) / 2
    return weights[0] * ((a - b) ** 2).mean() + weights[1] * variance + weights[2] * covariance


def pseudocode_vicreg(a: np.ndarray, b: np.ndarray, weights: Weights) -> float:
    covariance = sum(off_diagonal_squares(z).sum() / z.shape[1] for z in (a, b))
    variance = hinge(a) + hinge(b)
    return weights[0] * ((a - b) ** 2).mean() + weights[1] * variance + weights[2] * covariance


def paper_vicreg(a: np.ndarray, b: np.ndarray, weights: Weights) -> float:
    invariance = np.mean([np.linalg.norm(x - y) ** 2 for x, y in zip(a, b, strict=True)])
    covariance = sum(off_diagonal_squares(z).sum() / z.shape[1] for z in (a, b))
    return weights[0] * invariance + weights[1] * (hinge(a) + hinge(b)) + weights[2] * covariance


def eb_jepa_vicreg(a: np.ndarray, b: np.ndarray, weights: Weights) -> float:
    covariance = off_diagonal_squares(a).mean() + off_diagonal_squares(b).mean()
    variance = hinge(a) + hinge(b)
    return weights[0] * ((a - b) ** 2).mean() + weights[1] * variance + weights[2] * covariance


VICREG = {
    "authors": authors_vicreg,
    "lightly": authors_vicreg,
    "stable_pretraining": authors_vicreg,
    "pseudocode": pseudocode_vicreg,
    "solo_learn": pseudocode_vicreg,
    "paper": paper_vicreg,
    "eb_jepa": eb_jepa_vicreg,
}


def translated_vicreg(z: torch.Tensor, convention: str, weights: Weights) -> float:
    ours = vicreg_weights(
        convention,
        invariance=weights[0],
        variance=weights[1],
        covariance=weights[2],
        width=z.shape[2],
    )
    terms = vicreg(
        z, invariance=ours.invariance, variance=ours.variance, covariance=ours.covariance
    )
    return float(sum(terms.values()))


@pytest.mark.parametrize("convention", VICREG)
@pytest.mark.parametrize(("batch", "width"), [(9, 5), (5, 9)])
def test_vicreg_is_the_conventions(convention: str, batch: int, width: int) -> None:
    z = random_views(batch, width)
    weights = (3.0, 7.0, 11.0)
    expected = VICREG[convention](*z.numpy(), weights)
    assert translated_vicreg(z, convention, weights) == pytest.approx(float(expected), rel=1e-10)


@pytest.mark.parametrize(
    ("convention", "value"),
    [
        ("authors", 24.75),
        ("lightly", 24.75),
        ("stable_pretraining", 24.75),
        ("pseudocode", 49.5),
        ("solo_learn", 49.5),
        ("paper", 49.5),
        ("eb_jepa", 49.5),
    ],
)
def test_vicreg_of_zeros_tells_the_conventions(convention: str, value: float) -> None:
    zeros = torch.zeros(2, 8, 4, dtype=torch.float64)
    assert translated_vicreg(zeros, convention, (25.0, 25.0, 1.0)) == pytest.approx(value)


@pytest.mark.parametrize("convention", ["authors", "paper", "lightly", "solo_learn"])
def test_barlow_twins_is_the_conventions(convention: str) -> None:
    z = random_views(9, 5)
    a, b = ((v - v.mean(axis=0)) / np.sqrt(v.var(axis=0) + 1e-5) for v in z.numpy())
    parts = (np.eye(5) - a.T @ b / 9) ** 2
    parts[~np.eye(5, dtype=bool)] *= 0.0051
    scale = 0.1 if convention == "solo_learn" else 1.0
    ours = barlow_twins_weights(convention, redundancy=0.0051, scale=scale)
    terms = barlow_twins(z, invariance=ours.invariance, redundancy=ours.redundancy)
    assert float(sum(terms.values())) == pytest.approx(float(scale * parts.sum()), rel=1e-10)


def one_sided(count: int, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Knots from 0 and the trapezoids' weights, doubled for the other half, times the Gaussian."""
    t = np.linspace(0, reach, count)
    weights = np.full(count, 2 * t[1])
    weights[[0, -1]] = t[1]
    return t, weights * np.exp(-(t**2) / 2)


def two_sided(count: int, reach: float) -> tuple[np.ndarray, np.ndarray]:
    t = np.linspace(-reach, reach, count)
    weights = np.full(count, t[1] - t[0])
    weights[[0, -1]] /= 2
    return t, weights * np.exp(-(t**2) / 2)


# Each code's knots and weights; where noneg's integral then ends, and how well the two agree.
KNOTS = {
    "authors": (*one_sided(17, 3), 3.0, 1e-12),
    "lightly": (*one_sided(17, 3), 3.0, 1e-12),
    "paper": (*two_sided(17, 5), 5.0, 1e-6),
    "eb_jepa": (*two_sided(10, 3), 3.0, 2e-3),
}


def statistic(y: np.ndarray, t: np.ndarray, weights: np.ndarray) -> float:
    """T / n of projections, by a code's knots."""
    off = np.abs(np.exp(1j * np.outer(t, y)).mean(axis=1) - np.exp(-(t**2) / 2)) ** 2
    return float(off @ weights)


def lejepa_parts(z: torch.Tensor, convention: str) -> tuple[float, float]:
    """Invariance and weighted statistic, lambda = 0.1, in the directions of seed 0."""
    a, b = z.numpy()
    batch, width = a.shape
    torch.manual_seed(0)
    directions = torch.randn(width, 3, dtype=torch.float64).numpy()
    directions /= np.linalg.norm(directions, axis=0)
    t, weights, *_ = KNOTS[convention]
    projections = [y for view in (a, b) for y in (view @ directions).T]
    mean_statistic = float(np.mean([statistic(y, t, weights) for y in projections]))
    mean = (a + b) / 2
    to_mean = ((a - mean) ** 2 + (b - mean) ** 2) / 2
    if convention == "eb_jepa":
        return float(((a - b) ** 2).mean()), 0.1 * mean_statistic
    invariance = to_mean.sum(axis=1).mean() if convention == "paper" else to_mean.mean()
    return float(0.9 * invariance), 0.1 * batch * mean_statistic


@pytest.mark.parametrize("convention", KNOTS)
def test_lejepa_is_the_conventions(convention: str) -> None:
    """By each code's own knots: as noneg's of the same reach, and within 1 % of the whole line."""
    z = random_views(9, 5)
    invariance, gaussian = lejepa_parts(z, convention)
    ours = lejepa_weights(convention, weight=0.1, batch=9, width=5)
    assert float(ours.invariance * distance_to_mean(z)) == pytest.approx(invariance, rel=1e-12)
    *_, reach, agreement = KNOTS[convention]
    torch.manual_seed(0)
    same_reach = ours.sigreg * sigreg(z, slices=3, reach=reach)
    assert float(same_reach) == pytest.approx(gaussian, rel=agreement)
    torch.manual_seed(0)
    assert float(ours.sigreg * sigreg(z, slices=3)) == pytest.approx(gaussian, rel=0.01)


@pytest.mark.parametrize(
    ("convention", "value"),
    [
        ("authors", 0.02 * 8 * 0.40205),
        ("lightly", 0.02 * 8 * 0.40205),
        ("paper", 0.02 * 8 * 0.40892),
        ("eb_jepa", 0.02 * 0.39996),
    ],
)
def test_lejepa_of_zeros_tells_the_conventions(convention: str, value: float) -> None:
    """Lambda times T of 8 images, or T / n; knots up to 3 miss 2 % of the whole line's."""
    zeros = torch.zeros(2, 8, 4, dtype=torch.float64)
    t, weights, *_ = KNOTS[convention]
    ours = lejepa_weights(convention, weight=0.02, batch=8, width=4).sigreg
    assert ours * statistic(np.zeros(8), t, weights) == pytest.approx(value, rel=1e-4)
    assert ours * float(sigreg(zeros)) == pytest.approx(value, rel=0.025)


def authors_visreg(z: np.ndarray, directions: np.ndarray, weight: float) -> float:
    """(1 - lambda) invariance + lambda (center + scale + shape), each a mean over the views."""
    batch = z.shape[1]
    quantiles = norm.ppf(np.arange(1, batch + 1) / (batch + 1))[:, None]
    regularizers = []
    for view in z:
        deviation = view.std(axis=0) + 1e-6
        shapes = np.sort((view - view.mean(axis=0)) / deviation @ directions, axis=0)
        center, scale = (view.mean(axis=0) ** 2).mean(), ((deviation - 1) ** 2).mean()
        regularizers.append(center + scale + ((shapes - quantiles) ** 2).mean())
    invariance = ((z - z.mean(axis=0)) ** 2).mean()
    return float((1 - weight) * invariance + weight * np.mean(regularizers))


@pytest.mark.parametrize("weight", [0.6, 0.9])
def test_visreg_is_the_authors(weight: float) -> None:
    z = random_views(9, 5)
    torch.manual_seed(0)
    directions = torch.randn(5, 3, dtype=torch.float64).numpy()
    directions /= np.linalg.norm(directions, axis=0)
    ours = asdict(visreg_weights(weight))
    torch.manual_seed(0)
    value = float(sum(visreg(z, slices=3, **ours).values()))
    assert value == pytest.approx(authors_visreg(z.numpy(), directions, weight), rel=1e-10)


def test_visreg_of_constants_tells_lambda() -> None:
    """Views of 1 and of -1: invariance and center 1, scale 1, and the quantiles' variance."""
    ones = torch.ones(1, 3, 4, dtype=torch.float64)
    shape = 2 / 3 * norm.ppf(0.75) ** 2
    terms = visreg(torch.cat([ones, -ones]), slices=3, **asdict(visreg_weights(0.7)))
    expected = {"invariance": 0.3, "center": 0.7, "scale": 0.7, "shape": 0.7 * shape}
    assert {name: float(term) for name, term in terms.items()} == pytest.approx(expected, rel=1e-5)


def test_byol_differs_by_a_factor_and_a_constant() -> None:
    p, t = random_views(6, 4), random_views(6, 4).flip(1) + 0.1
    p.requires_grad_()

    def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a * b).sum(1) / a.norm(dim=1) / b.norm(dim=1)

    forth, back = cosine(p[0], t[1]), cosine(p[1], t[0])
    others = {
        "sum": (2 - 2 * forth).mean() + (2 - 2 * back).mean(),
        "mean": ((2 - 2 * forth).mean() + (2 - 2 * back).mean()) / 2,
        "negative_cosine": -(forth.mean() + back.mean()) / 2,
    }
    ours = torch.autograd.grad(4 * (1 + negative_cosine(p, t)), p)[0]
    for convention, other in others.items():
        theirs = torch.autograd.grad(other, p, retain_graph=True)[0]
        torch.testing.assert_close(byol_weight(convention) * ours, theirs)


def authors_isoloss(z: torch.Tensor, t: torch.Tensor, predictor: torch.Tensor) -> torch.Tensor:
    """One direction of fmi-basel/implicit-var-reg; |psqrt|^2 is z . p."""
    p = z @ predictor
    lengths = (p.norm(dim=1) * t.norm(dim=1)).detach()
    cosine = ((p * t).sum(dim=1) / lengths).detach()
    along = (z * p).sum(dim=1) / p.norm(dim=1).square().detach()
    return -2 * ((z * t).sum(dim=1) / lengths - cosine * along / 2).mean()


def test_isotropic_directpred_has_the_gradient_of_the_authors_loss() -> None:
    """Their value is another."""
    method = build("directpred", isotropic=True)
    matrix = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    method.predictor = matrix @ matrix.T / 16
    e = method.embed(make_views())
    assert e.t is not None
    (ours,) = torch.autograd.grad(method.objective(e).value, e.z, retain_graph=True)
    one, other = (authors_isoloss(e.z[v], e.t[1 - v], method.predictor) for v in (0, 1))
    (theirs,) = torch.autograd.grad(one + other, e.z)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("convention", ["authors", "lightly"])
def test_w_mse_is_the_authors(convention: str) -> None:
    """The squared distance of unit vectors, each view whitened by the inverse Cholesky factor."""
    z = random_views(9, 4)
    rows = []
    for view in z.numpy():
        inverse = np.linalg.inv(np.linalg.cholesky(np.cov(view.T)))
        white = (view - view.mean(axis=0)) @ inverse.T
        rows.append(white / np.linalg.norm(white, axis=1, keepdims=True))
    expected = np.mean(((rows[0] - rows[1]) ** 2).sum(axis=1))
    value = w_mse_weight(convention, width=4) * w_mse(z, per_view=True)["w_mse"]
    assert float(value) == pytest.approx(float(expected), rel=1e-10)


def test_w_mse_is_stable_pretrainings() -> None:
    """Both views by the inverse root of one covariance, unit length, mean over the width too."""
    z = random_views(9, 4) + torch.tensor([[[0.0]], [[0.5]]], dtype=torch.float64)
    flat = z.flatten(0, 1).numpy()
    values, vectors = np.linalg.eigh(np.cov(flat.T))
    white = (flat - flat.mean(axis=0)) @ (vectors / np.sqrt(values)) @ vectors.T
    white /= np.linalg.norm(white, axis=1, keepdims=True)
    expected = ((white[:9] - white[9:]) ** 2).mean()
    value = w_mse_weight("stable_pretraining", width=4) * w_mse(z)["w_mse"]
    assert float(value) == pytest.approx(float(expected), rel=1e-10)


def authors_simdino(z: np.ndarray, t: np.ndarray, epsilon: float, processes: int) -> float:
    """What process 0 computes: its own images' covariance, divided by the number of all."""
    images, width = z.shape[1] // processes, z.shape[2]
    z, t = (rows / np.linalg.norm(rows, axis=2, keepdims=True) for rows in (z, t))
    rates = []
    for view in (z + t)[:, :images] / 2:
        matrix = width / (images * processes * epsilon) * view.T @ view
        rates.append(np.linalg.slogdet(np.eye(width) + matrix)[1] / 2)
    gamma = (width + processes * images) / (width * processes * images)
    cosines = [(z[a, :images] * t[b, :images]).sum(axis=1).mean() for a, b in ((0, 1), (1, 0))]
    return -float(np.mean(cosines)) - gamma * float(np.mean(rates))


@pytest.mark.parametrize("processes", [1, 3])
def test_simdino_is_that_of_processes_with_equal_moments(processes: int) -> None:
    """Exactly if all processes have the same images; the authors' epsilon as it is differs."""
    z, t = random_views(7, 4), random_views(7, 4).flip(2) + 0.3
    z, t = (each.repeat(1, processes, 1) for each in (z, t))
    expected = authors_simdino(z.numpy(), t.numpy(), 0.05, processes)

    def ours(distortion: float) -> float:
        return float(sum(simdino(z, t, distortion=distortion).values()))

    assert ours(simdino_distortion(0.05, processes=processes)) == pytest.approx(expected)
    as_it_is = ours(simdino_distortion(0.05, processes=processes, reduced=True))
    assert (as_it_is == pytest.approx(expected)) == (processes == 1)


def test_unknown_conventions_are_named_with_the_known() -> None:
    with pytest.raises(NonegError, match=r"'timm' of VICReg; known are: authors, .*eb_jepa"):
        vicreg_weights("timm", invariance=1.0, variance=1.0, covariance=1.0, width=4)
    with pytest.raises(NonegError, match="width of at least 2, not 1"):
        vicreg_weights("eb_jepa", invariance=1.0, variance=1.0, covariance=1.0, width=1)
    with pytest.raises(NonegError, match="'vissl' of Barlow Twins"):
        barlow_twins_weights("vissl", redundancy=1.0)
    with pytest.raises(NonegError, match="no scale in the convention 'lightly'"):
        barlow_twins_weights("lightly", redundancy=1.0, scale=0.1)
    with pytest.raises(NonegError, match="'stable_pretraining' of LeJEPA; known are: authors"):
        lejepa_weights("stable_pretraining", weight=0.1, batch=8)
    with pytest.raises(NonegError, match="give lejepa_weights a width"):
        lejepa_weights("paper", weight=0.1, batch=8)
    with pytest.raises(NonegError, match="'solo_learn' of W-MSE; known are: authors, lightly"):
        w_mse_weight("solo_learn", width=4)
    with pytest.raises(NonegError, match="'max' of BYOL"):
        byol_weight("max")
