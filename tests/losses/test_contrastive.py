"""Losses with negatives: pairs, triplets, and one against a queue."""

import numpy as np
import pytest
import torch
from torch import Tensor

from noneg.errors import NonegError
from noneg.losses import contrastive, info_nce, triplet

SIZES = [(2, 3, 2), (5, 2, 2), (6, 11, 2), (4, 3, 3)]


def random_views(batch: int, width: int, views: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(views, batch, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("batch", "width", "views"), SIZES)
@pytest.mark.parametrize("margin", [1.0, 2.5])
def test_contrastive_is_the_papers(batch: int, width: int, views: int, margin: float) -> None:
    z = random_views(batch, width, views).numpy() * margin / np.sqrt(2 * width)
    alike, different = [], []
    places = [(v, i) for v in range(views) for i in range(batch)]
    for number, (v, i) in enumerate(places):
        for w, j in places[:number]:
            distance = np.sqrt(((z[v, i] - z[w, j]) ** 2).sum())
            if i == j:
                alike.append(distance**2)
            else:
                different.append(max(0.0, margin - distance) ** 2)
    beyond = sum(value == 0 for value in different)
    assert 0 < beyond < len(different) or batch == 2
    terms = contrastive(torch.from_numpy(z), margin=margin)
    assert terms.keys() == {"attraction", "repulsion"}
    assert float(terms["attraction"]) == pytest.approx(float(np.mean(alike)), rel=1e-12)
    assert float(terms["repulsion"]) == pytest.approx(float(np.mean(different)), rel=1e-12)


def test_contrastive_closed_forms() -> None:
    same = random_views(1, 4)[:1].expand(2, 5, 4)
    terms = contrastive(same, margin=3.0)
    assert (float(terms["attraction"]), float(terms["repulsion"])) == (0, 9)
    # Corners of a simplex of side 2: at the margin, and half of it.
    apart = (2**0.5 * torch.eye(5, dtype=torch.float64)).expand(2, 5, 5)
    assert float(contrastive(apart, margin=2.0)["repulsion"]) == pytest.approx(0, abs=1e-20)
    assert float(contrastive(apart, margin=4.0)["repulsion"]) == pytest.approx(4)


def test_contrastive_has_a_finite_gradient_at_distance_nothing() -> None:
    z = random_views(1, 4)[:1].repeat(2, 5, 1).requires_grad_()
    sum(contrastive(z).values()).backward()  # type: ignore[union-attr]
    assert z.grad is not None
    assert torch.equal(z.grad, torch.zeros_like(z))
    # The control: the smallest difference has the full gradient, 2 * margin / pairs.
    near = z.detach().clone()
    near[0, 0, 0] += 1e-9
    near.requires_grad_()
    contrastive(near, margin=3.0)["repulsion"].backward()
    assert near.grad is not None
    # Image 0's view 0 meets 8 views of other images, of 40 unordered pairs in all.
    assert float(near.grad[0, 0, 0]) == pytest.approx(-2 * 3 * 8 / 40, rel=1e-6)


def test_contrastive_keeps_the_digits_of_small_distances_far_out() -> None:
    z = 1000 + 1e-2 * random_views(6, 5)
    exact = contrastive(z.float().double(), margin=0.05)["repulsion"]
    assert float(exact) > 1e-5
    torch.testing.assert_close(
        contrastive(z.float(), margin=0.05)["repulsion"].double(), exact, rtol=1e-5, atol=0
    )


def triplets_of_the_papers(z: np.ndarray, margin: float, negatives: str | np.ndarray) -> float:
    """Each anchor and positive, with the negative that a search through all others finds."""
    views, batch, _ = z.shape
    z = z / np.linalg.norm(z, axis=2, keepdims=True)
    losses = []
    for a in range(views):
        for p in range(views):
            for i in range(batch):
                if a == p:
                    continue
                positive = ((z[a, i] - z[p, i]) ** 2).sum()
                others = [
                    ((z[a, i] - z[v, j]) ** 2).sum()
                    for v in range(views)
                    for j in range(batch)
                    if j != i
                ]
                if isinstance(negatives, np.ndarray):
                    negative = ((z[a, i] - z[p, negatives[i]]) ** 2).sum()
                elif negatives == "hardest":
                    negative = min(others)
                else:
                    beyond = [each for each in others if each > positive]
                    negative = min(beyond) if beyond else max(others)
                losses.append(max(0.0, margin + positive - negative))
    return float(np.mean(losses))


@pytest.mark.parametrize(("batch", "width", "views"), SIZES)
@pytest.mark.parametrize("negatives", ["semi_hard", "hardest", "given"])
@pytest.mark.parametrize("margin", [0.2, 1.0])
def test_triplet_is_the_papers(
    batch: int, width: int, views: int, negatives: str, margin: float
) -> None:
    z = random_views(batch, width, views)
    # Views of an image are nearer to each other than to most others.
    z[1:] = z[:1] + 0.7 * z[1:]
    if negatives == "given":
        order = torch.arange(batch).roll(1)
        expected = triplets_of_the_papers(z.numpy(), margin, order.numpy())
        actual = triplet(z, margin=margin, negatives=order)["triplet"]
    else:
        expected = triplets_of_the_papers(z.numpy(), margin, negatives)
        actual = triplet(z, margin=margin, negatives=negatives)["triplet"]  # type: ignore[arg-type]
    assert float(actual) == pytest.approx(expected, rel=1e-12, abs=1e-15)


NEGATIVES = ["semi_hard", "hardest", torch.tensor([1, 2, 3, 4, 0])]


@pytest.mark.parametrize("negatives", NEGATIVES)
def test_triplet_closed_forms(negatives: object) -> None:
    same = random_views(1, 4)[:1].expand(2, 5, 4)
    loss = triplet(same, margin=0.3, negatives=negatives)  # type: ignore[arg-type]
    assert float(loss["triplet"]) == pytest.approx(0.3)
    # d^2 is 2 between orthogonal images and 0 between their views: the loss is margin - 2.
    apart = torch.eye(5, dtype=torch.float64).expand(2, 5, 5)
    for margin, expected in ((1.5, 0.0), (2.5, 0.5)):
        loss = triplet(apart, margin=margin, negatives=negatives)  # type: ignore[arg-type]
        assert float(loss["triplet"]) == pytest.approx(expected)
    # Opposite views of orthogonal images: d^2 is 4 between views, 2 to any other image.
    opposite = torch.stack([apart[0], -apart[0]])
    loss = triplet(opposite, margin=0.5, negatives=negatives)  # type: ignore[arg-type]
    assert float(loss["triplet"]) == pytest.approx(2.5)


def test_the_hardest_negative_costs_the_most() -> None:
    z = random_views(8, 5)
    semi_hard, hardest = (
        float(triplet(z, negatives=each)["triplet"])  # type: ignore[arg-type]
        for each in ("semi_hard", "hardest")
    )
    random = float(triplet(z, negatives=torch.arange(8).roll(3))["triplet"])
    assert hardest > max(random, semi_hard)


@pytest.mark.parametrize(("batch", "width", "views"), SIZES)
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_info_nce_is_the_papers(batch: int, width: int, views: int, temperature: float) -> None:
    q, k = (random_views(batch, width, views, seed).numpy() for seed in (0, 1))
    queue = random_views(7, width, seed=2)[0].numpy()
    excluded = np.random.default_rng(0).random((batch, 7)) < 0.3

    def similarity(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.exp(a @ b / np.linalg.norm(a) / np.linalg.norm(b) / temperature))

    for left_out in (None, excluded):
        losses = []
        for v in range(views):
            for w in range(views):
                for i in range(batch):
                    if v == w:
                        continue
                    positive = similarity(q[v, i], k[w, i])
                    others = [
                        similarity(q[v, i], each)
                        for number, each in enumerate(queue)
                        if left_out is None or not left_out[i, number]
                    ]
                    losses.append(-np.log(positive / (positive + sum(others))))
        actual = info_nce(
            *(torch.from_numpy(each) for each in (q, k, queue)),
            temperature=temperature,
            excluded=None if left_out is None else torch.from_numpy(left_out),
        )["info_nce"]
        assert float(actual) == pytest.approx(float(np.mean(losses)), rel=1e-10)


def test_info_nce_closed_forms() -> None:
    same = random_views(1, 4)[:1].expand(2, 5, 4)
    for length in (1, 9, 300):
        alike = info_nce(same, same, same[0, :1].expand(length, 4))
        assert float(alike["info_nce"]) == pytest.approx(np.log(1 + length))
    # One negative: a logistic loss on the difference of the cosines.
    a, b = torch.eye(2, dtype=torch.float64)
    q = a.expand(2, 5, 2)
    for key, other, cosines in ((a, b, 1.0), (b, a, -1.0), (a, -a, 2.0), (b, b, 0.0)):
        loss = info_nce(q, key.expand(2, 5, 2), other[None], temperature=0.5)["info_nce"]
        assert float(loss) == pytest.approx(np.log1p(np.exp(-cosines / 0.5)))


def test_info_nce_of_far_negatives_keeps_its_digits() -> None:
    """1 minus a share that is nearly 1 would be 0 in float32."""
    a = torch.eye(3)[0]
    loss = info_nce(a.expand(2, 4, 3), a.expand(2, 4, 3), -a[None], temperature=0.07)["info_nce"]
    assert float(loss) == pytest.approx(np.exp(-2 / 0.07), rel=1e-4, abs=0)


LOSSES = {
    "contrastive": lambda z: sum(contrastive(z, margin=2.0).values()),
    "semi_hard": lambda z: triplet(z, margin=0.5)["triplet"],
    "hardest": lambda z: triplet(z, margin=0.5, negatives="hardest")["triplet"],
    "given": lambda z: triplet(z, negatives=torch.arange(z.shape[1]).roll(1))["triplet"],
    "info_nce": lambda z: info_nce(z, z, z.flatten(0, 1), temperature=0.5)["info_nce"],
}
every_loss = pytest.mark.parametrize("name", LOSSES)


@every_loss
def test_gradients(name: str) -> None:
    assert torch.autograd.gradcheck(LOSSES[name], random_views(5, 4, views=3).requires_grad_())


@every_loss
def test_turning_and_reordering_change_nothing(name: str) -> None:
    z = random_views(6, 5)
    loss = LOSSES[name]
    rotation = torch.linalg.qr(random_views(5, 5, seed=1)[0])[0]
    order = torch.randperm(6, generator=torch.Generator().manual_seed(2))
    moved = [z @ rotation, z.flip(0)]
    if name == "contrastive":
        moved += [z + 3, z[:, order]]
    elif name == "given":
        moved += [3 * z, z.roll(2, dims=1)]
    else:
        moved += [3 * z, z[:, order]]
    for other in moved:
        assert float(loss(other)) == pytest.approx(float(loss(z)))


@every_loss
def test_bfloat16_is_computed_in_float32(name: str) -> None:
    z = random_views(6, 5).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(LOSSES[name](z), LOSSES[name](z.float()))
    assert LOSSES[name](z).dtype == torch.float32


@pytest.mark.parametrize("name", ["contrastive", "semi_hard", "hardest", "info_nce"])
def test_one_image_or_one_view_is_refused_in_a_sentence(name: str) -> None:
    with pytest.raises(NonegError, match="needs a batch of at least 2 images, not 1"):
        LOSSES[name](torch.zeros(2, 1, 4))
    with pytest.raises(NonegError, match="needs at least 2, not 1"):
        LOSSES[name](torch.zeros(1, 8, 4))
