"""Both forms of the off-diagonal energy: same value and gradient, little memory, all digits."""

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from noneg.losses import barlow_twins, spectral_contrastive, vicreg
from noneg.losses.gram import center, covariance_energy, cross_energy, gram, unit_columns

Loss = Callable[..., dict[str, Tensor]]

# n < d, n = d, n > d; one coordinate, two images, and both sides of n = d.
SIZES = [
    (2, 1),
    (2, 7),
    (9, 1),
    (7, 3),
    (24, 70),
    (70, 24),
    (33, 33),
    (32, 33),
    (33, 32),
    (140, 190),
]


def random_views(batch: int, width: int, views: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(1, batch, width, generator=generator, dtype=torch.float64)
    noise = torch.randn(views, batch, width, generator=generator, dtype=torch.float64)
    return image + 0.5 * noise


def textbook(z: Tensor, name: str) -> dict[str, Tensor]:
    """Both losses by their width x width matrices and autograd, for any number of views."""
    views, batch, width = z.shape
    rest = 1 - torch.eye(width, dtype=z.dtype)
    # Twice, for means that are large relative to the deviation.
    centered = [view - view.mean(0) - (view - view.mean(0)).mean(0) for view in z]
    pairs = list(combinations(range(views), 2))
    terms: dict[str, Tensor] = {}
    if name == "vicreg":
        terms["invariance"] = 25 * sum((z[a] - z[b]).square().mean() for a, b in pairs) / len(pairs)
        for number, x in enumerate(centered, start=1):
            matrix = x.T @ x / (batch - 1)
            hinge = torch.relu(1 - torch.sqrt(matrix.diagonal() + 1e-4)).mean()
            terms[f"variance_{number}"] = 25 * hinge / views
            terms[f"covariance_{number}"] = 2 / views * (matrix * rest).square().sum() / width
        return terms
    standard = [x / torch.sqrt(x.square().mean(0) + 1e-5) for x in centered]
    matrices = [standard[a].T @ standard[b] / batch for a, b in pairs]
    terms["invariance"] = sum((1 - c.diagonal()).square().sum() for c in matrices) / len(pairs)
    terms["redundancy"] = 5e-3 * sum((c * rest).square().sum() for c in matrices) / len(pairs)
    return terms


def assert_equal_to_the_textbook(
    loss: Loss, z: Tensor, tolerance: float, floor: float = 0.0
) -> None:
    """Each term, and the gradient of each and of the whole, relative to the textbook's in float64.

    `floor` is for terms that are zero except for rounding.
    """
    ours = z.clone().requires_grad_()
    theirs = z.double().requires_grad_()
    actual, expected = loss(ours), textbook(theirs, loss.__name__)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        difference = float((actual[name].double() - value).abs().detach())
        assert difference <= tolerance * float(value.detach()) + floor, name
    gradient = torch.autograd.grad(torch.stack(list(actual.values())).sum(), ours)[0]
    truth = torch.autograd.grad(torch.stack(list(expected.values())).sum(), theirs)[0]
    assert float((gradient.double() - truth).norm()) <= tolerance * float(truth.norm()) + floor


@pytest.mark.parametrize("loss", [vicreg, barlow_twins])
@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize(("batch", "width"), SIZES)
def test_value_and_gradient_are_the_textbooks_in_float64(
    loss: Loss, batch: int, width: int, views: int
) -> None:
    z = random_views(batch, width, views)
    # Two standardized images are +1 and -1, except for epsilon: nearly all of the gradient cancels.
    tolerance = 1e-10 if batch > 2 else 1e-8
    assert_equal_to_the_textbook(loss, z, tolerance, floor=1e-15)


@pytest.mark.parametrize("loss", [vicreg, barlow_twins])
@pytest.mark.parametrize(("batch", "width"), [size for size in SIZES if size[0] > 2])
def test_value_and_gradient_are_the_textbooks_in_float32(
    loss: Loss, batch: int, width: int
) -> None:
    assert_equal_to_the_textbook(loss, random_views(batch, width).float(), 1e-5)


@pytest.mark.parametrize("loss", [vicreg, barlow_twins])
@pytest.mark.parametrize(("batch", "width"), [(24, 70), (70, 24)])
@pytest.mark.parametrize(("scale", "offset"), [(1.0, 1e4), (1e-2, 1e4), (1e-6, 0.0), (1e5, 0.0)])
def test_large_means_and_tiny_variances_cost_no_digits(
    loss: Loss, batch: int, width: int, scale: float, offset: float
) -> None:
    z = (random_views(batch, width) * scale + offset).float()
    assert_equal_to_the_textbook(loss, z, 1e-5)


def nearly_white(batch: int, width: int) -> Tensor:
    """As uncorrelated, with equal variances, as `width` > batch - 1 columns can be."""
    columns = torch.randn(
        batch, batch - 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    ones = torch.ones(batch, 1, dtype=torch.float64)
    basis = torch.linalg.qr(torch.cat([ones, columns], dim=1))[0][:, 1:] * batch**0.5
    return torch.cat([basis, basis.flip(1)[:, : width - batch + 1]], dim=1)


@pytest.mark.parametrize("loss", [vicreg, barlow_twins])
def test_a_diagonal_thousands_of_times_the_rest_costs_no_digits(loss: Loss) -> None:
    """The n x n form subtracts the diagonal: here 512 of 513 parts of the whole."""
    z = nearly_white(512, 513)
    noise = torch.randn(z.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    terms = loss(torch.stack([z, z + 0.1 * noise]))
    rest = sum(value for name, value in terms.items() if name[:3] in ("cov", "red"))
    assert 0 < float(rest) < 0.05 * (1 if loss is vicreg else 5e-3 * 513 * 4)
    assert_equal_to_the_textbook(loss, torch.stack([z, z + 0.1 * noise]).float(), 1e-5)


def test_unequal_variances_leave_an_error_of_some_roundings_of_their_squares() -> None:
    """What still cancels: hundreds of uncorrelated coordinates, and as many constant ones."""
    z = torch.cat([nearly_white(256, 255), torch.zeros(256, 256, dtype=torch.float64)], dim=1)
    squares, energy = covariance_energy(z[None].float())
    assert 0 <= float(energy) <= 4 * torch.finfo(torch.float32).eps * float(squares.square().sum())
    # Instead of the square of the diagonal, which would be lost here too.
    assert float(energy) < 1e-6 * float(squares.square().sum())


@pytest.mark.parametrize(("batch", "width"), [(16, 64), (64, 16)])
def test_energies_of_nothing_are_zero_and_never_less(batch: int, width: int) -> None:
    constant = torch.full((2, batch, width), 1234.5)
    for energies in (covariance_energy(constant), cross_energy(constant, epsilon=1e-5)):
        for each in energies:
            assert float(each.abs().max()) == 0
    for seed in range(50):
        generator = torch.Generator().manual_seed(seed)
        # One coordinate that is not constant: all of the energy is on the diagonal.
        z = torch.zeros(2, batch, width)
        z[:, :, 0] = torch.randn(2, batch, generator=generator) * 1000
        assert float(covariance_energy(z)[1].min()) >= 0
        assert float(cross_energy(z)[1].min()) >= 0


class Largest(TorchDispatchMode):
    """Remembers the most elements of any tensor that an operation makes."""

    elements = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.elements = max(self.elements, leaf.numel())
        return result


def largest_tensor(loss: Loss, z: Tensor) -> int:
    z = z.clone().requires_grad_()
    with Largest() as largest:
        torch.stack(list(loss(z).values())).sum().backward()
    return largest.elements


@pytest.mark.parametrize("loss", [vicreg, barlow_twins])
@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize(
    ("batch", "width"), [(8, 300), (64, 300), (299, 300), (300, 300), (300, 8), (3, 900)]
)
def test_no_tensor_is_larger_than_the_embeddings_or_the_smaller_square(
    loss: Loss, batch: int, width: int, views: int
) -> None:
    z = random_views(batch, width, views).float()
    pairs = views * (views - 1) // 2
    most = max(z.numel(), max(views, pairs) * min(batch, width) ** 2)
    assert largest_tensor(loss, z) <= most


def test_the_textbook_does_build_the_large_square() -> None:
    """The control: the counter sees a d x d matrix if there is one."""
    z = random_views(8, 300).float()
    assert largest_tensor(lambda z: textbook(z, "vicreg"), z) == 300**2


@pytest.mark.parametrize("loss", [vicreg, barlow_twins, spectral_contrastive])
@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize(("batch", "width"), [(5, 3), (4, 11), (4, 4), (2, 3)])
def test_gradients(loss: Loss, batch: int, width: int, views: int) -> None:
    z = (random_views(batch, width, views) * 0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: list(loss(z).values()), z)


@pytest.mark.parametrize(("batch", "width"), [(5, 3), (4, 11)])
def test_gradients_of_diagonal_and_energy_apart(batch: int, width: int) -> None:
    z = random_views(batch, width, 3).requires_grad_()
    assert torch.autograd.gradcheck(covariance_energy, z)
    assert torch.autograd.gradcheck(cross_energy, z)
    assert torch.autograd.gradcheck(lambda z: cross_energy(z, epsilon=0.1), z)


def test_a_second_derivative_is_refused_and_not_wrong() -> None:
    z = random_views(5, 3).requires_grad_()
    loss = torch.stack(list(vicreg(z).values())).sum()
    first = torch.autograd.grad(loss, z, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(2, 60),
    width=st.integers(1, 60),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    offset=st.sampled_from([0.0, 10.0]),
    seed=st.integers(0, 1000),
)
def test_energies_for_any_size_and_scale(
    batch: int, width: int, scale: float, offset: float, seed: int
) -> None:
    z = random_views(batch, width, 3, seed) * scale + offset * scale
    squares, energies = covariance_energy(z)
    for view, square, energy in zip(z.numpy(), squares.numpy(), energies, strict=True):
        matrix = np.atleast_2d(np.cov(view.T)) * (batch - 1)
        total = (matrix**2).sum()
        np.testing.assert_allclose(square, np.diag(matrix), rtol=1e-10, atol=1e-12 * scale**2)
        off = total - (np.diag(matrix) ** 2).sum()
        assert abs(float(energy) - off) <= 1e-10 * total
    diagonals, energies = cross_energy(z)
    for at, (a, b) in enumerate(combinations(z.numpy(), 2)):
        matrix = a.T @ b
        np.testing.assert_allclose(diagonals[at].numpy(), np.diag(matrix), rtol=1e-9, atol=1e-9)
        off = (matrix**2).sum() - (np.diag(matrix) ** 2).sum()
        assert abs(float(energies[at]) - off) <= 1e-10 * np.linalg.norm(a) ** 2 * (
            np.linalg.norm(b) ** 2
        )


@pytest.mark.parametrize("count", [1, 2, 31, 64, 97, 128, 200])
def test_gram_in_stripes_is_the_whole_product(count: int) -> None:
    rows = random_views(count, 5)[0]
    torch.testing.assert_close(gram(rows), rows @ rows.T)


def test_unit_columns_are_those_of_torch_and_zeros_stay() -> None:
    z = random_views(6, 4)
    z[:, :, 1] = 0
    z.requires_grad_()
    weights = random_views(6, 4, seed=1)
    plain = torch.nn.functional.normalize(z, dim=1)
    torch.testing.assert_close(unit_columns(z), plain)
    expected = torch.autograd.grad((plain * weights).sum(), z)[0]
    actual = torch.autograd.grad((unit_columns(z) * weights).sum(), z)[0]
    torch.testing.assert_close(actual, expected)


def test_centering_twice_is_what_large_means_need() -> None:
    z = random_views(200, 7)[0].float() * 1e-2 + 1e4
    truth = z.double() - z.double().mean(0)
    assert float((center(z) - truth).norm()) < 1e-6 * float(truth.norm())
    assert float((z - z.mean(0) - truth).norm()) > 1e-3 * float(truth.norm())


@pytest.mark.parametrize("loss", [vicreg, barlow_twins])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("batch", "width"), [(24, 70), (70, 24)])
def test_half_precision_is_computed_in_float32(
    loss: Loss, dtype: torch.dtype, batch: int, width: int
) -> None:
    half = random_views(batch, width).to(dtype).requires_grad_()
    wide = half.detach().float().requires_grad_()
    for z in (half, wide):
        torch.stack(list(loss(z).values())).sum().backward()
    for name, value in loss(wide).items():
        assert loss(half)[name].dtype == torch.float32
        assert torch.equal(loss(half)[name], value), name
    assert half.grad is not None
    assert wide.grad is not None
    assert half.grad.dtype == dtype
    assert torch.equal(half.grad, wide.grad.to(dtype))


@pytest.mark.parametrize("loss", [vicreg, barlow_twins])
@pytest.mark.parametrize(("batch", "width"), [(24, 70), (70, 24)])
def test_autocast_changes_nothing_forward_or_backward(loss: Loss, batch: int, width: int) -> None:
    plain, cast = (random_views(batch, width).float().requires_grad_() for _ in range(2))
    torch.stack(list(loss(plain).values())).sum().backward()
    with torch.autocast("cpu", torch.bfloat16):
        torch.stack(list(loss(cast).values())).sum().backward()
    assert plain.grad is not None
    assert cast.grad is not None
    assert torch.equal(plain.grad, cast.grad)
