"""SwAV and DINO against their formulas in float64, closed forms, gradients."""

from math import log

import numpy as np
import pytest
import torch
from test_contract import build
from torch import Tensor

from noneg.losses import dino, sinkhorn, swapped_cross_entropy, swav
from noneg.methods.base import Embeddings


def random_scores(batch: int, clusters: int, views: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(views, batch, clusters, generator=generator, dtype=torch.float64) - 1


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x)
    return powers / powers.sum(axis=-1, keepdims=True)


def balanced(scores: np.ndarray, epsilon: float, iterations: int) -> np.ndarray:
    """The authors' order: all at once, then clusters and images in turn, each to its total."""
    Q = np.exp(scores / epsilon).T
    Q /= Q.sum()
    for _ in range(iterations):
        Q /= Q.sum(axis=1, keepdims=True) * len(Q)
        Q /= Q.sum(axis=0, keepdims=True) * Q.shape[1]
    return (Q * Q.shape[1]).T


@pytest.mark.parametrize(("batch", "clusters"), [(2, 3), (9, 4)])
@pytest.mark.parametrize(("views", "targets"), [(2, 2), (4, 2), (3, 1)])
def test_swav_is_the_papers(batch: int, clusters: int, views: int, targets: int) -> None:
    scores = random_scores(batch, clusters, views)
    losses = []
    for w in range(targets):
        q = balanced(scores[w].numpy(), 0.2, 3)
        for v in range(views):
            if v != w:
                share = softmax(scores[v].numpy() / 0.1)
                losses.append(-(q * np.log(share)).sum(axis=1).mean())
    actual = swav(scores, scores[:targets], epsilon=0.2)["swav"]
    assert float(actual) == pytest.approx(float(np.mean(losses)), rel=1e-10)


def test_a_queue_is_balanced_with_each_view_but_not_predicted() -> None:
    scores, queue = random_scores(6, 4, 3), random_scores(7, 4, 1, seed=1)[0]
    losses = []
    for w in range(2):
        together = np.concatenate([scores[w].numpy(), queue.numpy()])
        q = balanced(together, 0.2, 3)[:6]
        for v in range(3):
            if v != w:
                share = softmax(scores[v].numpy() / 0.1)
                losses.append(-(q * np.log(share)).sum(axis=1).mean())
    actual = swav(scores, scores[:2], epsilon=0.2, queue=queue)["swav"]
    assert float(actual) == pytest.approx(float(np.mean(losses)), rel=1e-10)
    without = swav(scores, scores[:2], epsilon=0.2)["swav"]
    assert abs(float(actual) - float(without)) > 1e-3


def test_balanced_assignments_add_up_whatever_the_scale() -> None:
    q = sinkhorn(random_scores(12, 4, 1)[0], epsilon=0.3, iterations=100)
    torch.testing.assert_close(q.sum(dim=1), torch.ones(12, dtype=torch.float64))
    torch.testing.assert_close(q.sum(dim=0), torch.full((4,), 3.0, dtype=torch.float64))
    # exp(300) is beyond float32.
    assert torch.isfinite(sinkhorn(300 * random_scores(5, 3, 1)[0].float(), epsilon=1.0)).all()
    # Even if all images have the same scores, no cluster gets more than its share.
    same = sinkhorn(random_scores(1, 4, 1)[0].expand(8, 4))
    torch.testing.assert_close(same, torch.full((8, 4), 0.25, dtype=torch.float64))


@pytest.mark.parametrize(("views", "targets"), [(2, 2), (4, 2)])
def test_dino_is_the_papers_over_three_steps(views: int, targets: int) -> None:
    """The center of a step is made of the steps before it."""
    method = build("dino", prototypes=5, center_momentum=0.7).double()
    center = np.zeros(5)
    for step in range(3):
        scores = random_scores(6, 5, views, seed=step)
        t = random_scores(6, 5, targets, seed=10 + step)
        losses = []
        for w in range(targets):
            q = softmax((t[w].numpy() - center) / 0.04)
            for v in range(views):
                if v != w:
                    share = softmax(scores[v].numpy() / 0.1)
                    losses.append(-(q * np.log(share)).sum(axis=1).mean())
        loss = method.objective(Embeddings(h=scores, z=scores, p=scores, t=t))
        assert float(loss.value) == pytest.approx(float(np.mean(losses)), rel=1e-10)
        center = 0.7 * center + 0.3 * t.numpy().mean(axis=(0, 1))


def test_equal_scores_cost_the_logarithm_of_the_clusters_and_agreement_nothing() -> None:
    equal, center = torch.zeros(3, 6, 7), torch.zeros(7)
    assert float(swav(equal, equal[:2])["swav"]) == pytest.approx(log(7))
    assert float(dino(equal, equal[:2], center)["dino"]) == pytest.approx(log(7))
    # One cluster per image, or one for all: DINO's collapse, which its center prevents.
    one = 100 * torch.eye(7)[:6].expand(3, 6, 7)
    assert float(dino(one, one[:2], center)["dino"]) == pytest.approx(0, abs=1e-6)
    all_in_one = one[:, :1].expand(3, 6, 7)
    assert float(dino(all_in_one, all_in_one[:2], center)["dino"]) == pytest.approx(0, abs=1e-6)
    assert float(dino(all_in_one, all_in_one[:2], one[0, 0])["dino"]) > 100
    # SwAV spreads what cannot be told apart.
    assert float(swav(all_in_one, all_in_one[:2])["swav"]) > 100


def test_a_constant_in_the_center_and_the_order_of_images_change_nothing() -> None:
    scores, order = random_scores(6, 5, 3), torch.randperm(6)
    center = torch.linspace(0, 0.1, 5, dtype=torch.float64)
    value = float(dino(scores, scores[:2], center)["dino"])
    assert float(dino(scores, scores[:2], center + 3)["dino"]) == pytest.approx(value)
    moved = scores[:, order]
    assert float(dino(moved, moved[:2], center)["dino"]) == pytest.approx(value)
    other = swav(moved, moved[:2])["swav"]
    assert float(other) == pytest.approx(float(swav(scores, scores[:2])["swav"]))


def test_gradient_flows_into_the_predictions_alone() -> None:
    scores, t = random_scores(5, 3, 3).requires_grad_(), random_scores(5, 3).requires_grad_()
    center = torch.zeros(3, dtype=torch.float64)
    for loss in (lambda s: dino(s, t, center)["dino"], lambda s: swav(s, t)["swav"]):
        assert torch.autograd.gradcheck(loss, scores)
        used = torch.autograd.grad(loss(scores), (scores, t), allow_unused=True)
        assert [each is not None for each in used] == [True, False]
    assert torch.autograd.gradcheck(lambda s: swapped_cross_entropy(t.softmax(dim=2), s), scores)
