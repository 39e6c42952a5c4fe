"""A target for each image: a running average, updated once per step and equal on every rank."""

from typing import Any

import numpy as np
import pytest
import torch
from test_contract import build, make_views
from torch import Tensor

from noneg.methods.base import Embeddings
from noneg.methods.simsiam_em import Options, SimSiamEM
from noneg.training.step import compute_gradient, compute_gradient_in_chunks

WIDTH = 16


def simsiam_em(**options: Any) -> SimSiamEM:
    method = build("simsiam_em", **options)
    assert isinstance(method, SimSiamEM)
    return method


def embeddings(index: list[int], seed: int, views: int = 2) -> Embeddings:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(views, len(index), WIDTH, generator=generator, dtype=torch.float64)
    return Embeddings(h=z, z=z.requires_grad_(), index=torch.tensor(index))


def test_the_papers_momentum_is_the_default() -> None:
    assert Options().momentum == 0.8
    assert Options().eta == "average"


def test_eta_is_each_images_own_running_average() -> None:
    """An independent transcription: a dictionary of images, image by image."""
    method, eta = simsiam_em(momentum=0.7).double(), dict[int, np.ndarray]()
    batches = [[5, 0, 3], [3, 9, 0], [0, 1, 2], [9, 5, 3]]
    for seed, index in enumerate(batches):
        e = embeddings(index, seed, views=3)
        z = e.z.detach().numpy()
        cosines = []
        for position, image in enumerate(index):
            for view in range(3):
                others = z[[each for each in range(3) if each != view], position].mean(axis=0)
                target = 0.7 * eta[image] + 0.3 * others if image in eta else others
                p = z[view, position]
                cosines.append(p @ target / np.linalg.norm(p) / np.linalg.norm(target))
        for position, image in enumerate(index):
            mean = z[:, position].mean(axis=0)
            eta[image] = 0.7 * eta[image] + 0.3 * mean if image in eta else mean
        loss = method.objective(e)
        assert float(loss.value.detach()) == pytest.approx(-np.mean(cosines), rel=1e-9)
        for image, expected in eta.items():
            np.testing.assert_allclose(method.eta[image].numpy(), expected, rtol=1e-9)
        assert method.seen.nonzero().flatten().tolist() == sorted(eta)


def test_a_constant_image_has_itself_as_its_target() -> None:
    """The closed form: with embeddings that stay, eta stays, and the loss is -1 from then on."""
    method, z = simsiam_em(), torch.randn(1, 4, WIDTH).expand(2, -1, -1)
    for _ in range(3):
        loss = method.objective(Embeddings(h=z, z=z, index=torch.arange(4)))
        torch.testing.assert_close(loss.value, torch.tensor(-1.0))
    torch.testing.assert_close(method.eta, z[0])


def test_no_gradient_flows_into_a_target() -> None:
    """The gradient is that of a cosine with a constant, image by image."""
    for options in ({"eta": "average"}, {"eta": "views"}):
        method, e = simsiam_em(**options).double(), embeddings([0, 1, 2], 0)
        method.objective(e).value.backward()
        z = e.z.detach().clone().requires_grad_()
        constant = z.detach().flip(0)
        (-torch.cosine_similarity(z, constant, dim=-1).mean()).backward()
        assert z.grad is not None
        torch.testing.assert_close(e.z.grad, z.grad)
        assert not method.eta.requires_grad


def test_the_mean_of_the_other_views_keeps_nothing() -> None:
    method = simsiam_em(eta="views").double()
    for seed in (0, 1):
        e = embeddings([0, 1, 2], seed, views=4)
        z = e.z.detach()
        expected = torch.zeros((), dtype=torch.float64)
        for view in range(4):
            others = torch.cat([z[:view], z[view + 1 :]]).mean(dim=0)
            expected -= torch.cosine_similarity(z[view], others, dim=-1).mean() / 4
        torch.testing.assert_close(method.objective(e).value.detach(), expected)
    assert len(method.eta) == 0


@pytest.mark.parametrize("chunk_size", [3, 12])
def test_eta_moves_once_per_step_with_chunks_too(chunk_size: int) -> None:
    whole, chunked = simsiam_em().eval(), simsiam_em().eval()
    for seed in (0, 1):
        views = make_views(seed=seed)
        compute_gradient(whole, views, torch.arange(12))

        def draw(part: slice, drawn: tuple[Tensor, ...] = views) -> tuple[Tensor, ...]:
            return tuple(view[part] for view in drawn)

        compute_gradient_in_chunks(chunked, draw, torch.arange(12), chunk_size)
    torch.testing.assert_close(chunked.eta, whole.eta)


def test_a_checkpoint_brings_its_images() -> None:
    trained, restored = simsiam_em(), simsiam_em()
    compute_gradient(trained, make_views(), torch.arange(12) + 30)
    restored.load_state_dict(trained.state_dict())
    assert restored.eta.shape == (42, WIDTH)
    assert torch.equal(restored.eta, trained.eta)
    assert torch.equal(restored.seen, trained.seen)
    # The buffers grow for images that come later.
    compute_gradient(restored, make_views(), torch.arange(12) + 60)
    assert torch.equal(restored.eta[30:42], trained.eta[30:42])
    assert restored.seen.sum() == 24
