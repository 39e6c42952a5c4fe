"""MoCo's queue, and what its keys are normalized by."""

import pytest
import torch
from test_contract import BATCH, build, make_views
from torch import nn
from torch.nn.functional import normalize

from noneg.errors import NonegError
from noneg.methods.moco import MoCo
from noneg.networks.norms import measure_statistics
from noneg.training.step import compute_gradient, compute_gradient_in_chunks

KEYS = 2 * BATCH


class NormBackbone(nn.Module):
    """Batch statistics, so that an image's embedding depends on the batch."""

    num_features = 16

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(self.convolution(images))).mean(dim=(2, 3))


def moco(backbone: type[nn.Module] | None = None, **options: object) -> MoCo:
    more = {} if backbone is None else {"backbone": backbone}
    method = build("moco", **more, **options)  # type: ignore[arg-type]
    assert isinstance(method, MoCo)
    return method


def images_of(step: int) -> torch.Tensor:
    return torch.arange(BATCH) + BATCH * step


def test_the_queue_starts_as_unit_vectors_of_no_image() -> None:
    method = moco()
    torch.testing.assert_close(method.queue.norm(dim=1), torch.ones(200))
    assert method.queue.std() == pytest.approx(16**-0.5, rel=0.05)
    assert torch.equal(method.queue_index, torch.full((200,), -1))


def test_the_newest_keys_stand_first_and_the_oldest_fall_out() -> None:
    method, keys, images = moco(queue=60), [], []
    for step in range(4):
        _, e = compute_gradient(method, make_views(seed=step), images_of(step))
        assert e.t is not None
        keys.insert(0, normalize(e.t.flatten(0, 1), dim=1))
        images.insert(0, images_of(step).repeat(2))
        method.after_step(0.5)
    torch.testing.assert_close(method.queue, torch.cat(keys)[:60])
    assert torch.equal(method.queue_index, torch.cat(images)[:60])
    assert not method.queue.requires_grad


def test_the_first_loss_is_the_papers_equation() -> None:
    method = moco(temperature=0.3)
    queue = method.queue.double()
    loss, e = compute_gradient(method, make_views(), images_of(0))
    assert e.t is not None
    q, k = (normalize(each.detach().double(), dim=2) for each in (e.z, e.t))
    losses = []
    for view, other in ((0, 1), (1, 0)):
        for image in range(BATCH):
            against = (q[view, image] * k[other, image]).sum()[None], queue[:192] @ q[view, image]
            losses.append(-torch.log_softmax(torch.cat(against) / 0.3, dim=0)[0])
    torch.testing.assert_close(loss.value.detach().double(), torch.stack(losses).mean())


def test_an_images_own_older_keys_are_no_negatives() -> None:
    """The loss is that of a queue without them; the control counts them."""
    method, control = moco(), moco()
    for each in (method, control):
        compute_gradient(each, make_views(seed=0), images_of(0))
    control.queue_index = torch.full_like(control.queue_index, -1)
    loss, e = compute_gradient(method, make_views(seed=1), images_of(0))
    counted, _ = compute_gradient(control, make_views(seed=1), images_of(0))
    assert float(loss.value.detach()) < float(counted.value.detach()) - 0.01
    del e


@pytest.mark.parametrize("length", [KEYS, 2 * KEYS, 60, 200])
def test_the_order_within_a_batch_never_matters(length: int) -> None:
    """Even if the queue does not hold whole batches, later losses are the same."""
    one, other = moco(queue=length), moco(queue=length)
    generator = torch.Generator().manual_seed(0)
    for step in range(8):
        views, order = make_views(seed=step), torch.randperm(BATCH, generator=generator)
        index = images_of(step)
        first, _ = compute_gradient(one, views, index)
        second, _ = compute_gradient(other, tuple(view[order] for view in views), index[order])
        torch.testing.assert_close(first.value, second.value, rtol=1e-5, atol=1e-6)
    assert not torch.equal(one.queue, other.queue)


def test_embedding_twice_queues_once() -> None:
    whole, chunked = moco(), moco()
    views = make_views()
    compute_gradient(whole, views, images_of(0))
    compute_gradient_in_chunks(
        chunked, lambda part: tuple(view[part] for view in views), images_of(0), 5
    )
    torch.testing.assert_close(chunked.queue, whole.queue)
    assert torch.equal(chunked.queue_index, whole.queue_index)


def test_a_queue_that_is_shorter_than_a_batch_is_refused() -> None:
    with pytest.raises(NonegError, match=r"20 keys is too short for 2 views of 12 .* 24 or more"):
        compute_gradient(moco(queue=20), make_views(), images_of(0))


@pytest.mark.parametrize("statistics", ["running", "batch"])
def test_keys_depend_on_their_batch_only_with_batch_statistics(statistics: str) -> None:
    method = moco(NormBackbone, key_statistics=statistics)
    views = make_views()
    among_others = tuple(torch.cat([view[:4], 3 * view[4:]]) for view in views)
    one, other = method.embed(views), method.embed(among_others)
    assert one.t is not None
    assert other.t is not None
    assert torch.equal(one.t[:, :4], other.t[:, :4]) == (statistics == "running")
    # Queries depend on the batch in either case.
    assert not torch.equal(one.z[:, :4], other.z[:, :4])


def test_the_key_networks_statistics_follow_and_can_be_measured() -> None:
    method = moco(NormBackbone, momentum=0.5)
    norm, online = method.target[0].norm, method.backbone.norm
    method.embed(make_views())
    assert torch.equal(norm.running_mean, torch.zeros(16))
    method.after_step(0.5)
    torch.testing.assert_close(norm.running_mean, 0.5 * online.running_mean)
    measure_statistics(method, lambda: method.embed(make_views()))
    assert norm.running_mean.abs().max() > 0
    before = norm.running_mean.clone()
    method.embed(make_views(seed=1))
    assert torch.equal(norm.running_mean, before)
    assert not norm.training


def test_the_key_network_moves_by_the_papers_momentum() -> None:
    method = moco(momentum=0.9)
    with torch.no_grad():
        for parameter in method.target.parameters():
            parameter.zero_()
    method.after_step(0.1)
    online = nn.Sequential(method.backbone, method.projector)
    for one, other in zip(method.target.parameters(), online.parameters(), strict=True):
        torch.testing.assert_close(one, 0.1 * other.detach())


def test_the_projector_has_no_norm() -> None:
    kinds = [type(layer) for layer in moco().projector]
    assert kinds == [nn.Linear, nn.ReLU, nn.Linear]
