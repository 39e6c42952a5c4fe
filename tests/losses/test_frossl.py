"""FroSSL against the authors' formula in float64, closed forms, invariances, gradients."""

from math import log

import numpy as np
import pytest
import torch
from torch import Tensor

from noneg.errors import NonegError
from noneg.losses import frossl


def random_views(batch: int, width: int, views: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(views, batch, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("batch", "width"), [(2, 1), (3, 8), (8, 3), (5, 5)])
@pytest.mark.parametrize("views", [2, 3])
def test_frossl_is_the_papers(batch: int, width: int, views: int) -> None:
    """View by view: log |K|^2 - 2 log tr K, and views * width * the mean squared difference."""
    z = random_views(batch, width, views).numpy() + 0.3
    columns = z / np.linalg.norm(z, axis=1, keepdims=True)
    mean = columns.mean(axis=0)
    expected = {"invariance": 0.0}
    for number, view in enumerate(columns, start=1):
        K = view.T @ view
        expected[f"entropy_{number}"] = np.log((K**2).sum()) - 2 * np.log(np.trace(K))
        expected["invariance"] += 0.7 * views * width * ((view - mean) ** 2).mean()
    actual = frossl(torch.from_numpy(z), invariance=0.7)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert float(actual[name]) == pytest.approx(float(value), rel=1e-10, abs=1e-12), name


def test_two_views_compare_columns_by_their_cosines() -> None:
    z = random_views(6, 4)
    a, b = z.numpy()
    cosines = (a * b).sum(axis=0) / np.linalg.norm(a, axis=0) / np.linalg.norm(b, axis=0)
    assert float(frossl(z)["invariance"]) == pytest.approx(2 / 6 * (1 - cosines).sum())


@pytest.mark.parametrize(("batch", "width"), [(12, 4), (4, 12)])
def test_entropies_of_a_flat_spectrum_and_of_a_point(batch: int, width: int) -> None:
    identity = torch.linalg.qr(random_views(12, 4)[0])[0]
    flat = identity if batch > width else torch.eye(4, dtype=torch.float64).repeat(1, 3)
    terms = frossl(flat.expand(2, batch, width))
    assert float(terms["entropy_1"]) == pytest.approx(-log(4))
    assert float(terms["invariance"]) == pytest.approx(0)
    point = frossl(random_views(1, width)[0].expand(2, batch, width))
    assert [float(each) for each in point.values()] == pytest.approx([0, 0, 0], abs=1e-12)
    assert float(frossl(torch.zeros(2, batch, width))["entropy_1"]) == 0


def test_coordinates_that_are_0_do_not_count() -> None:
    z = random_views(9, 4)
    wide = torch.cat([z, torch.zeros(2, 9, 12, dtype=z.dtype)], dim=2).requires_grad_()
    terms, narrow = frossl(wide), frossl(z)
    for name in ("entropy_1", "entropy_2"):
        assert float(terms[name].detach()) == pytest.approx(float(narrow[name]))
    (gradient,) = torch.autograd.grad(terms["entropy_1"], wide)
    assert gradient.isfinite().all()


def test_the_scale_of_coordinates_changes_nothing_but_a_shift_does() -> None:
    z = random_views(9, 4)
    before = frossl(z)
    for name, value in frossl(z * torch.tensor([0.1, 1, 5, 100.0])).items():
        assert float(value) == pytest.approx(float(before[name])), name
    for name, value in frossl(z + 1).items():
        assert abs(float(value) - float(before[name])) > 1e-3, name


@pytest.mark.parametrize(("batch", "width"), [(5, 3), (3, 5)])
def test_gradient(batch: int, width: int) -> None:
    z = random_views(batch, width, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: torch.stack(list(frossl(z).values())).sum(), z)


def test_bfloat16_is_computed_in_float32_and_one_image_is_refused() -> None:
    z = random_views(6, 3).bfloat16()
    for name, value in frossl(z).items():
        assert torch.equal(value, frossl(z.float())[name])
    with pytest.raises(NonegError, match="frossl needs a batch"):
        frossl(z[:, :1])
