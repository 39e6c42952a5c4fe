"""SimDINO against its formula in float64, its bounds, gradients."""

from math import log

import numpy as np
import pytest
import torch
from torch import Tensor

from noneg.losses import simdino


def random_views(batch: int, width: int, views: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(views, batch, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("batch", "width"), [(2, 2), (3, 8), (8, 3)])
@pytest.mark.parametrize(("views", "targets"), [(2, 2), (4, 2)])
def test_simdino_is_the_papers(batch: int, width: int, views: int, targets: int) -> None:
    z, t = random_views(batch, width, views), random_views(batch, width, targets, seed=1)
    student, teacher = (
        each.numpy() / np.linalg.norm(each.numpy(), axis=2, keepdims=True) for each in (z, t)
    )
    cosines = [
        (teacher[w] * student[v]).sum(axis=1).mean()
        for w in range(targets)
        for v in range(views)
        if v != w
    ]
    rates = []
    for w in range(targets):
        both = (student[w] + teacher[w]) / 2
        matrix = np.eye(width) + width / (batch * 0.3) * both.T @ both
        rates.append((width + batch) / (width * batch) * 0.5 * np.log(np.linalg.det(matrix)))
    terms = simdino(z, t, distortion=0.3)
    assert float(terms["agreement"]) == pytest.approx(-float(np.mean(cosines)), rel=1e-10)
    assert float(terms["coding_rate"]) == pytest.approx(-float(np.mean(rates)), rel=1e-10)


@pytest.mark.parametrize(("batch", "width"), [(4, 8), (12, 4)])
def test_orthogonal_images_are_the_least_and_a_point_the_most(batch: int, width: int) -> None:
    rows = torch.eye(width, dtype=torch.float64).repeat(3, 1)[:batch].expand(3, batch, width)
    terms = simdino(rows, rows[:2])
    least, gamma = min(batch, width), (width + batch) / (width * batch)
    assert float(terms["agreement"]) == pytest.approx(-1)
    expected = -gamma * least / 2 * log(1 + width / (least * 0.4))
    assert float(terms["coding_rate"]) == pytest.approx(expected)
    point = simdino(rows[:, :1].expand(3, batch, width), rows[:2, :1].expand(2, batch, width))
    assert float(point["coding_rate"]) == pytest.approx(-gamma / 2 * log(1 + width / 0.4))


def test_a_common_rotation_and_lengths_change_nothing() -> None:
    # Views that agree.
    z, t = (random_views(7, 4, 5) / 4 + random_views(7, 4, 1, seed=1)).split((3, 2))
    rotation = torch.linalg.qr(random_views(4, 4, seed=2)[0])[0]
    lengths = random_views(7, 1, 5, seed=3).exp()
    before = simdino(z, t)
    for other in (
        simdino(z @ rotation, t @ rotation),
        simdino(lengths[:3] * z, lengths[3:] * t),
    ):
        for name, value in other.items():
            assert float(value) == pytest.approx(float(before[name]), rel=1e-10), name
    # Not one of the student alone.
    for name, value in simdino(z @ rotation, t).items():
        assert abs(float(value) - float(before[name])) > 0.05, name


def test_gradient_flows_into_the_student_alone() -> None:
    z, t = random_views(5, 3, 3).requires_grad_(), random_views(5, 3, seed=1).requires_grad_()
    for name in ("agreement", "coding_rate"):
        assert torch.autograd.gradcheck(lambda z, name=name: simdino(z, t)[name], z)
        used = torch.autograd.grad(simdino(z, t)[name], (z, t), allow_unused=True)
        assert [each is not None for each in used] == [True, False]
