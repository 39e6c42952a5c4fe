"""The batch measures of studies, on inputs with known results."""

import math

import pytest
import torch
from torch import Tensor, nn

from noneg.methods.base import Embeddings
from noneg.methods.siamese import Options, Siamese
from noneg.studies.directpred import predictor_and_correlation

WIDTH = 64


def measure(predictor: Tensor | nn.Module, z: Tensor) -> dict[str, float]:
    method = Siamese(nn.Identity(), WIDTH, Options())
    method.predictor = predictor
    numbers = predictor_and_correlation(method, Embeddings(h=z, z=z))
    return {name: float(value) for name, value in numbers.items()}


@pytest.fixture
def z() -> Tensor:
    """Two views of 500 images, in directions of different power."""
    generator = torch.Generator().manual_seed(0)
    power = torch.linspace(0.1, 3, WIDTH, dtype=torch.float64)
    turned = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64)).Q
    drawn = torch.randn(2, 500, WIDTH, generator=generator, dtype=torch.float64)
    return drawn * power @ turned


def correlation(z: Tensor) -> Tensor:
    flat = z.flatten(0, 1)
    return flat.T @ flat / len(flat)


def test_the_root_of_the_correlation_is_aligned_and_proportional(z: Tensor) -> None:
    s, v = torch.linalg.eigh(correlation(z))
    found = measure(v @ torch.diag(2 * s.sqrt() + 0.3) @ v.T, z)
    assert found["aligned"] == pytest.approx(1)
    assert found["proportional"] == pytest.approx(1)
    assert found["commutator"] == pytest.approx(0, abs=1e-12)
    assert found["asymmetry"] == pytest.approx(0, abs=1e-12)


def test_the_identity_is_aligned_with_anything_and_proportional_to_nothing(z: Tensor) -> None:
    found = measure(torch.eye(WIDTH, dtype=torch.float64), z)
    assert found["aligned"] == pytest.approx(1)
    assert found["rank_w"] == pytest.approx(WIDTH)
    assert measure(-torch.eye(WIDTH, dtype=torch.float64), z)["aligned"] == pytest.approx(-1)


def test_directions_count_by_the_power_they_carry(z: Tensor) -> None:
    """All but the ten strongest are reversed: the power of these, minus that of the others."""
    s, v = torch.linalg.eigh(correlation(z))
    signs = torch.where(torch.arange(WIDTH) < WIDTH - 10, -1.0, 1.0).double()
    found = measure(v @ torch.diag(signs) @ v.T, z)
    assert found["aligned"] == pytest.approx(float((signs * s).sum() / s.sum()))
    assert -0.4 < found["aligned"] < 0.1


def test_a_predictor_that_knows_nothing_is_aligned_with_nothing(z: Tensor) -> None:
    """The commutator is small for any two large matrices."""
    layer = nn.Linear(WIDTH, WIDTH).double()
    nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(1))
    found = measure(layer, z)
    assert abs(found["aligned"]) < 3 / math.sqrt(WIDTH)
    assert abs(found["proportional"]) < 3 / math.sqrt(WIDTH)
    assert found["commutator"] < 0.1
    assert found["asymmetry"] == pytest.approx(math.sqrt(0.5), abs=0.03)


def test_where_there_is_no_matrix_there_is_no_number(z: Tensor) -> None:
    layers = nn.Sequential(nn.Linear(WIDTH, 8), nn.ReLU(), nn.Linear(8, WIDTH))
    assert all(math.isnan(value) for value in measure(layers, z).values())
