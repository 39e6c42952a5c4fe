"""SwAV's queue of earlier embeddings. The contract tests and those of ranks have it too."""

import pytest
import torch
from test_contract import BATCH, build, make_views
from torch.nn.functional import normalize

from noneg.errors import NonegError
from noneg.losses import swav
from noneg.methods.swav import SwAV
from noneg.training.step import compute_gradient, compute_gradient_in_chunks

BOTH = 2 * BATCH


def with_queue(**options: object) -> SwAV:
    method = build("swav", **options)
    assert isinstance(method, SwAV)
    return method


def step(method: SwAV, number: int) -> tuple[float, torch.Tensor]:
    loss, e = compute_gradient(method, make_views(seed=number), torch.arange(BATCH))
    return float(loss.value.detach()), e.z.detach()


def test_the_queue_is_used_as_soon_as_it_is_full() -> None:
    """Newest embeddings first, whole batches alone; scores are of the prototypes of the step."""
    method, embedded = with_queue(queue=60), []
    for number in range(4):
        value, z = step(method, number)
        scores = torch.stack([method.prototypes(each) for each in z]).detach()
        queue = None
        if number >= 2:
            earlier = torch.cat([embedded[-1], embedded[-2]])
            queue = normalize(earlier, dim=1) @ normalize(method.prototypes.weight, dim=1).T
        expected = swav(scores, scores, queue=queue)["swav"]
        assert value == pytest.approx(float(expected), rel=1e-5)
        embedded.append(z.flatten(0, 1))
        with torch.no_grad():
            method.prototypes.weight += torch.randn_like(method.prototypes.weight)
    torch.testing.assert_close(method.queue, torch.cat(embedded[::-1])[:60])
    assert not method.queue.requires_grad


def test_not_before_its_share_of_the_run() -> None:
    waiting, using, without = with_queue(queue_from=0.5), with_queue(), with_queue(queue=0)
    for method in (waiting, using, without):
        for number in range(3):
            step(method, number)
        method.after_step(0.4)
    values = [step(method, 3)[0] for method in (waiting, using, without)]
    assert values[0] == values[2] != values[1]
    waiting.after_step(0.5)
    using.after_step(0.5)
    assert step(waiting, 4)[0] == step(using, 4)[0]


def test_embedding_twice_queues_once() -> None:
    # Without batch statistics, which differ between chunks.
    whole, chunked = with_queue().eval(), with_queue().eval()
    views = make_views()
    compute_gradient(whole, views, torch.arange(BATCH))
    compute_gradient_in_chunks(
        chunked, lambda part: tuple(view[part] for view in views), torch.arange(BATCH), 5
    )
    torch.testing.assert_close(chunked.queue, whole.queue)
    assert int(whole.queue.any(dim=1).sum()) == BOTH


def test_small_crops_do_not_enter_it_and_a_short_one_is_refused() -> None:
    method = with_queue()
    small = tuple(view[:, :, :6, :6] for view in make_views(seed=1))
    compute_gradient(method, (*make_views(), *small), torch.arange(BATCH))
    assert int(method.queue.any(dim=1).sum()) == BOTH
    with pytest.raises(NonegError, match=r"20 embeddings is too short for 2 .* of 12 .* 24 or"):
        step(with_queue(queue=20), 0)
