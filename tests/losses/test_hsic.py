"""SSL-HSIC: a transcription of the paper's estimators, closed forms, invariances, gradients."""

from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from noneg.errors import NonegError
from noneg.losses import hsic

Kernel = Literal["inverse_multiquadric", "linear"]
KERNELS: tuple[Kernel, ...] = ("inverse_multiquadric", "linear")


def random_views(batch: int, width: int, views: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(1, batch, width, generator=generator, dtype=torch.float64)
    noise = torch.randn(views, batch, width, generator=generator, dtype=torch.float64)
    return image + 0.5 * noise


def transcription(z: np.ndarray, kernel: Kernel, scale: float, gamma: float) -> dict[str, float]:
    """HSIC of embeddings with images, and with themselves, pair by pair and by their matrices."""
    views, batch, _ = z.shape
    every = [(v, i) for v in range(views) for i in range(batch)]
    count = len(every)
    K = np.empty((count, count))
    for a, (v, i) in enumerate(every):
        for b, (w, j) in enumerate(every):
            difference = z[v, i] - z[w, j]
            K[a, b] = (
                z[v, i] @ z[w, j]
                if kernel == "linear"
                else scale / np.sqrt(scale**2 + difference @ difference)
            )
    positive = [
        K[a, b]
        for a, (v, i) in enumerate(every)
        for b, (w, j) in enumerate(every)
        if i == j and v != w
    ]
    H = np.eye(count) - 1 / count
    on_itself = np.trace(K @ H @ K @ H) / count**2
    return {
        "dependence": float(K.mean() - np.mean(positive)),
        "regularizer": float(gamma * np.sqrt(on_itself)),
    }


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("batch", "width"), [(2, 1), (3, 9), (9, 3), (4, 8)])
@pytest.mark.parametrize("views", [2, 3])
def test_hsic_is_the_papers(kernel: Kernel, batch: int, width: int, views: int) -> None:
    z = random_views(batch, width, views) + 2
    expected = transcription(z.numpy(), kernel, scale=0.7, gamma=2.0)
    actual = hsic(z, kernel=kernel, scale=0.7, gamma=2.0)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert float(actual[name]) == pytest.approx(value, rel=1e-10), name


@pytest.mark.parametrize("views", [2, 4])
def test_images_far_apart_with_identical_views(views: int) -> None:
    """K is 1 within an image and 0 elsewhere: 1 - 1/n, and sqrt(n - 1) / n."""
    z = 1e9 * torch.eye(5, 7, dtype=torch.float64).expand(views, 5, 7)
    terms = hsic(z, gamma=3.0)
    assert float(terms["dependence"]) == pytest.approx(-(1 - 1 / 5), rel=1e-6)
    assert float(terms["regularizer"]) == pytest.approx(3 * 2 / 5, rel=1e-6)


def test_linear_kernel_of_whitened_identical_views() -> None:
    """Covariance I: its trace, and the root of the sum of its squares."""
    centered = random_views(12, 4)[0]
    white = torch.linalg.qr(centered - centered.mean(dim=0))[0] * 12**0.5
    terms = hsic(white.expand(2, 12, 4), kernel="linear", gamma=1.0)
    assert float(terms["dependence"]) == pytest.approx(-4)
    assert float(terms["regularizer"]) == pytest.approx(2)


@pytest.mark.parametrize("kernel", KERNELS)
def test_collapsed_embeddings_depend_on_nothing_and_have_a_gradient(kernel: Kernel) -> None:
    z = torch.ones(2, 4, 3, requires_grad=True)
    terms = hsic(z, kernel=kernel)
    assert [float(term.detach()) for term in terms.values()] == pytest.approx([0, 0], abs=1e-6)
    torch.stack(list(terms.values())).sum().backward()
    assert z.grad is not None
    assert bool(torch.isfinite(z.grad).all())


@pytest.mark.parametrize("kernel", KERNELS)
def test_order_rotation_and_translation_change_nothing(kernel: Kernel) -> None:
    z = random_views(7, 5, views=3)
    rotation = torch.linalg.qr(random_views(5, 5, seed=1)[0])[0]
    expected = hsic(z, kernel=kernel)
    for changed in (z.flip(0), z[:, torch.randperm(7)], z @ rotation, z + 3):
        for name, value in hsic(changed, kernel=kernel).items():
            assert float(value) == pytest.approx(float(expected[name]), rel=1e-9), name


def test_the_scale_is_in_the_units_of_the_embeddings() -> None:
    z = random_views(6, 4)
    for name, value in hsic(10 * z, scale=10.0).items():
        assert float(value) == pytest.approx(float(hsic(z)[name]), rel=1e-10), name


@pytest.mark.parametrize("kernel", KERNELS)
def test_large_means_keep_their_digits_in_float32(kernel: Kernel) -> None:
    z = (random_views(20, 30) + 1000).float()
    truth = hsic(z.double(), kernel=kernel)
    for name, value in hsic(z, kernel=kernel).items():
        assert float(value) == pytest.approx(float(truth[name]), rel=1e-5), name


@pytest.mark.parametrize("kernel", KERNELS)
def test_embeddings_that_are_nearly_equal_keep_their_digits_in_float32(kernel: Kernel) -> None:
    """Near a collapse the kernel is 1 up to 1e-8, which is all that matters."""
    z = (1e-4 * random_views(20, 30) + 1).float()
    truth = hsic(z.double(), kernel=kernel)
    for name, value in hsic(z, kernel=kernel).items():
        assert float(value) == pytest.approx(float(truth[name]), rel=1e-4), name


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("batch", "width"), [(5, 3), (2, 6)])
def test_gradient(kernel: Kernel, batch: int, width: int) -> None:
    z = random_views(batch, width).requires_grad_()
    for name in ("dependence", "regularizer"):
        assert torch.autograd.gradcheck(lambda z, name=name: hsic(z, kernel=kernel)[name], z)


def test_bfloat16_is_computed_in_float32_and_one_view_is_refused() -> None:
    z = random_views(6, 3).to(torch.bfloat16)
    for name, value in hsic(z).items():
        assert torch.equal(value, hsic(z.float())[name])
    with pytest.raises(NonegError, match="hsic compares views"):
        hsic(z[:1])
