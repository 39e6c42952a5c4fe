"""NT-Xent, coding rate, spectral contrastive and W-MSE: transcriptions and closed forms."""

from math import log

import numpy as np
import pytest
import torch
from torch import Tensor

from noneg.errors import NonegError
from noneg.losses import coding_rate, nt_xent, spectral_contrastive, w_mse, whiten


def random_views(batch: int, width: int, views: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(views, batch, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("images", [2, 5, 64])
@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_nt_xent_of_identical_embeddings_counts_the_others(images: int, temperature: float) -> None:
    z = random_views(1, 7).expand(2, 1, 7)[:1].expand(2, images, 7)
    loss = nt_xent(z, temperature=temperature)["nt_xent"]
    assert float(loss) == pytest.approx(log(2 * images - 1))


@pytest.mark.parametrize(("images", "width"), [(2, 3), (5, 2), (6, 11)])
def test_nt_xent_is_the_papers(images: int, width: int) -> None:
    """Equation 1 for each of the 2N views, and their mean."""
    z = random_views(images, width).numpy()
    flat = [
        z[view, image] / np.linalg.norm(z[view, image])
        for image in range(images)
        for view in (0, 1)
    ]
    losses = []
    for i in range(2 * images):
        positive = i + 1 if i % 2 == 0 else i - 1
        others = [np.exp(flat[i] @ flat[k] / 0.3) for k in range(2 * images) if k != i]
        losses.append(-np.log(np.exp(flat[i] @ flat[positive] / 0.3) / sum(others)))
    actual = nt_xent(torch.from_numpy(z), temperature=0.3)["nt_xent"]
    assert float(actual) == pytest.approx(float(np.mean(losses)), rel=1e-12)


def test_nt_xent_with_more_views_shares_the_positives() -> None:
    z = random_views(1, 4)[:1].expand(3, 5, 4)
    assert float(nt_xent(z)["nt_xent"]) == pytest.approx(log(3 * 5 - 1))


@pytest.mark.parametrize(("batch", "width"), [(3, 8), (8, 3), (6, 6), (1, 4), (4, 1)])
def test_coding_rate_is_the_papers(batch: int, width: int) -> None:
    z = random_views(batch, width)[0]
    matrix = z.numpy().T @ z.numpy()
    expected = 0.5 * np.log(np.linalg.det(np.eye(width) + width / (batch * 0.2) * matrix))
    assert float(coding_rate(z, distortion=0.2)) == pytest.approx(float(expected), rel=1e-10)


def test_coding_rate_closed_forms() -> None:
    assert float(coding_rate(torch.zeros(5, 3))) == 0
    # Orthonormal columns times sqrt(n): Z'Z = n I.
    orthogonal = torch.linalg.qr(random_views(12, 4)[0])[0] * 12**0.5
    assert float(coding_rate(orthogonal, distortion=0.5)) == pytest.approx(2 * log(1 + 8))
    # All embeddings the same unit vector: one eigenvalue n.
    same = torch.nn.functional.normalize(random_views(1, 6)[0]).expand(9, 6)
    assert float(coding_rate(same, distortion=0.5)) == pytest.approx(0.5 * log(1 + 12))


@pytest.mark.parametrize(("batch", "width"), [(40, 90), (90, 40)])
def test_coding_rate_of_a_collapsed_batch_keeps_its_digits_in_float32(
    batch: int, width: int
) -> None:
    z = (random_views(1, width)[0] * 100 + 1e-3 * random_views(batch, width)[0]).float()
    truth = float(coding_rate(z.double(), distortion=1e-3))
    assert float(coding_rate(z, distortion=1e-3)) == pytest.approx(truth, rel=1e-6)


def test_coding_rate_rotates_and_grows() -> None:
    z = random_views(7, 5)[0]
    rotation = torch.linalg.qr(random_views(5, 5, seed=1)[0])[0]
    assert float(coding_rate(z @ rotation)) == pytest.approx(float(coding_rate(z)))
    assert float(coding_rate(2 * z)) > float(coding_rate(z))


@pytest.mark.parametrize(("batch", "width"), [(2, 3), (9, 4), (4, 9), (5, 5)])
@pytest.mark.parametrize("views", [2, 3])
def test_spectral_contrastive_is_the_papers(batch: int, width: int, views: int) -> None:
    z = random_views(batch, width, views).numpy()
    attraction, repulsion = [], []
    for a in range(views):
        for b in range(a + 1, views):
            for i in range(batch):
                attraction.append(-2 * z[a, i] @ z[b, i])
                repulsion += [(z[a, i] @ z[b, j]) ** 2 for j in range(batch) if j != i]
    terms = spectral_contrastive(torch.from_numpy(z))
    assert float(terms["attraction"]) == pytest.approx(float(np.mean(attraction)), rel=1e-10)
    assert float(terms["repulsion"]) == pytest.approx(float(np.mean(repulsion)), rel=1e-10)


def test_spectral_contrastive_closed_form() -> None:
    """Orthonormal images, identical views: attraction -2, repulsion 0."""
    z = torch.eye(5, 8, dtype=torch.float64).expand(2, 5, 8)
    terms = spectral_contrastive(z)
    assert float(terms["attraction"]) == -2
    assert float(terms["repulsion"]) == 0


def test_whitening_gives_the_identity_and_w_mse_its_transcription() -> None:
    z = random_views(20, 4) @ random_views(4, 4, seed=1)[0] + 3
    flat = z.flatten(0, 1)
    np.testing.assert_allclose(np.cov(whiten(flat).numpy().T), np.eye(4), atol=1e-12)
    inverse = np.linalg.inv(np.linalg.cholesky(np.cov(flat.numpy().T)))
    white = (flat.numpy() - flat.numpy().mean(axis=0)) @ inverse.T
    white /= np.linalg.norm(white, axis=1, keepdims=True)
    expected = np.mean([((white[i] - white[20 + i]) ** 2).sum() for i in range(20)])
    assert float(w_mse(z)["w_mse"]) == pytest.approx(float(expected), rel=1e-10)


def test_w_mse_closed_forms() -> None:
    z = random_views(20, 4)[:1].expand(2, 20, 4)
    assert float(w_mse(z)["w_mse"]) == pytest.approx(0, abs=1e-20)
    # Opposite views remain opposite when whitened: their mean is 0.
    assert float(w_mse(torch.stack([z[0], -z[0]]))["w_mse"]) == pytest.approx(4)


def test_w_mse_ignores_any_affine_map_of_the_embeddings() -> None:
    """By Cholesky, whitened rows change at most by a rotation, which distances do not see."""
    z = random_views(20, 4)
    moved = z @ random_views(4, 4, seed=1)[0] + 5
    assert float(w_mse(moved)["w_mse"]) == pytest.approx(float(w_mse(z)["w_mse"]))


def test_what_cannot_be_whitened_is_refused_in_a_sentence() -> None:
    with pytest.raises(NonegError, match="needs more embeddings than coordinates"):
        whiten(random_views(4, 4)[0])
    with pytest.raises(NonegError, match="singular"):
        whiten(torch.ones(8, 3))


@pytest.mark.parametrize(("batch", "width"), [(5, 3), (3, 5)])
def test_gradients(batch: int, width: int) -> None:
    z = random_views(batch, width).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: nt_xent(z)["nt_xent"], z)
    assert torch.autograd.gradcheck(lambda z: coding_rate(z[0]), z)
    assert torch.autograd.gradcheck(lambda z: w_mse(z, epsilon=0.1)["w_mse"], z)


def test_bfloat16_is_computed_in_float32() -> None:
    z = random_views(12, 3).to(torch.bfloat16)
    for loss in (nt_xent, spectral_contrastive, w_mse):
        for name, value in loss(z).items():
            assert value.dtype == torch.float32
            assert torch.equal(value, loss(z.float())[name]), name
    assert torch.equal(coding_rate(z[0]), coding_rate(z[0].float()))
