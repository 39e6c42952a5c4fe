"""Distances to a teacher: closed forms, invariances, and no gradient for the teacher."""

import math

import pytest
import torch
from torch import Tensor

from noneg.losses import distance_to_target, relational_distance


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_cosine_in_closed_form() -> None:
    """Two views at 60 and 90 degrees from the target."""
    t = torch.tensor([[2.0, 0.0]])
    z = torch.tensor([[[0.5, math.sqrt(0.75)]], [[0.0, 3.0]]])
    torch.testing.assert_close(distance_to_target(z, t), torch.tensor((0.5 + 1.0) / 2))
    assert float(distance_to_target(t[None], t)) == pytest.approx(0)
    assert float(distance_to_target(-t[None], t)) == pytest.approx(2)


def test_smooth_l1_is_hubers_on_scaled_unit_vectors() -> None:
    z, t = random(3, 5, 8), random(5, 8, seed=1)
    total = 0.0
    for view in z:
        for one, other in zip(view, t, strict=True):
            for a, b in zip(
                one / one.norm() * math.sqrt(8), other / other.norm() * math.sqrt(8), strict=True
            ):
                d = abs(float(a - b))
                total += d * d / 2 if d < 1 else d - 0.5
    expected = total / (3 * 5 * 8)
    assert float(distance_to_target(z, t, "smooth_l1")) == pytest.approx(expected)


def test_relational_is_the_mean_over_pairs_of_different_images() -> None:
    z, t = random(2, 4, 6), random(4, 3, seed=1)
    total = 0.0
    for view in z:
        for i in range(4):
            for j in range(4):
                if i != j:
                    student = view[i] @ view[j] / view[i].norm() / view[j].norm()
                    teacher = t[i] @ t[j] / t[i].norm() / t[j].norm()
                    total += float(student - teacher) ** 2
    assert float(relational_distance(z, t)) == pytest.approx(total / (2 * 4 * 3))


@pytest.mark.parametrize("kind", ["cosine", "smooth_l1"])
def test_lengths_do_not_count(kind: str) -> None:
    z, t = random(2, 5, 8), random(5, 8, seed=1)
    before = distance_to_target(z, t, kind)  # type: ignore[arg-type]
    scaled = distance_to_target(z * random(2, 5, 1, seed=2).abs(), 7 * t, kind)  # type: ignore[arg-type]
    torch.testing.assert_close(scaled, before)


def test_relations_do_not_depend_on_a_rotation_but_on_the_images() -> None:
    z, t = random(2, 5, 8), random(5, 8, seed=1)
    rotation, _ = torch.linalg.qr(random(8, 8, seed=2))
    torch.testing.assert_close(relational_distance(z @ rotation, 3 * t), relational_distance(z, t))
    assert float(relational_distance(t[None] @ rotation, t)) == pytest.approx(0, abs=1e-12)
    assert float(relational_distance(t.flip(0)[None], t)) > 0.01


def test_gradients() -> None:
    z = random(2, 3, 4).requires_grad_()
    t = random(3, 4, seed=1).requires_grad_()
    for loss in (
        lambda z: distance_to_target(z, t),
        lambda z: distance_to_target(z, t, "smooth_l1"),
        lambda z: relational_distance(z, t),
    ):
        assert torch.autograd.gradcheck(loss, (z,))
        loss(z).backward()
        assert t.grad is None
