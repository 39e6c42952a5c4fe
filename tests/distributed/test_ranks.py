"""Several processes equal one process on all of their data: loss, gradient, and some steps."""

import copy
import functools
import socket
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, final

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from test_contract import build, make_views
from torch import Tensor, nn

from noneg.methods import list_methods
from noneg.methods.base import Embeddings, Loss, Method
from noneg.networks.norms import use_group_norm
from noneg.training.distributed import synchronize_statistics
from noneg.training.step import Views, compute_gradient, compute_gradient_in_chunks

RANKS, BATCH, STEPS = 3, 24, 4
VARIANTS = ("group norm", "group norm, in chunks", "batch norm")


@final
class RunningCenter(Method):
    """Keeps a running mean of its batches, samples directions, has a target for one view alone."""

    center: Tensor

    def __init__(self, backbone: nn.Module, width: int) -> None:
        super().__init__(backbone)
        self.projector = nn.Sequential(
            nn.Linear(width, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 6)
        )
        self.register_buffer("center", torch.zeros(6))

    def embed(self, views: Views) -> Embeddings:
        h = torch.stack([self.backbone(view) for view in views])
        z = torch.stack([self.projector(each) for each in h])
        return Embeddings(h=h, z=z, t=z[:1].detach())

    def objective(self, e: Embeddings) -> Loss:
        assert e.t is not None
        self.center.lerp_(e.z.detach().mean(dim=(0, 1)), 0.3)
        apart = (e.t[0] - e.z[1]).square().mean()
        directions = torch.randn(6, 3, dtype=e.z.dtype)
        spread = ((e.z - self.center) @ directions).std(dim=(0, 1)).mean()
        return Loss(apart - spread, {"apart": apart, "spread": -spread})


@final
class BatchNormBackbone(nn.Module):
    """Batch statistics over images and pixels."""

    num_features = 16

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)

    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(self.norm(self.convolution(images))).mean(dim=(2, 3))


METHODS = [*list_methods(), "running_center"]
# Methods that treat small crops apart from large ones, each in a way of its own.
CROPPED = ["dino", "lejepa", "swav"]
SMALL_CROPS = "group norm, with small crops"
CASES = [*product(METHODS, VARIANTS), *product(CROPPED, [SMALL_CROPS])]


def make_method(name: str, variant: str) -> Method:
    if name == "running_center":
        torch.manual_seed(1)
        method: Method = RunningCenter(BatchNormBackbone(), 16)
    else:
        method = build(name, backbone=BatchNormBackbone)
    if variant != "batch norm":
        use_group_norm(method)
    # In float32, rounding may change the slope of a ReLU.
    return method.double()


def take_steps(
    method: Method, part: slice, variant: str, average: Callable[[Tensor], None]
) -> dict[str, Any]:
    """Take some steps on a part of each batch; returns the first one's results, and the weights."""
    optimizer = torch.optim.SGD(
        [each for each in method.parameters() if each.requires_grad], lr=2e-3, momentum=0.9
    )
    outcome: dict[str, Any] = {}
    for number in range(STEPS):
        optimizer.zero_grad()
        views = make_views(BATCH, seed=number)
        if variant == SMALL_CROPS:
            views += tuple(view[:, :, :6, :6] for view in make_views(BATCH, seed=STEPS + number))
        views = tuple(view[part].double() for view in views)
        index = torch.arange(BATCH)[part]
        if variant == "group norm, in chunks":
            step, e = compute_gradient_in_chunks(
                method, lambda chunk, v=views: tuple(view[chunk] for view in v), index, 4,
                seed=number,
            )  # fmt: skip
        else:
            step, e = compute_gradient(method, views, index, seed=number)
        gradients = {
            key: value.grad for key, value in method.named_parameters() if value.grad is not None
        }
        for gradient in gradients.values():
            average(gradient)
        if number == 0:
            outcome = {
                "loss": step.value.detach(),
                "terms": {key: value.detach() for key, value in step.terms.items()},
                "z": e.z.detach(),
                "index": e.index,
                "gradients": copy.deepcopy(gradients),
            }
        optimizer.step()
        method.after_step((number + 1) / STEPS)
    outcome["state"] = method.state_dict()
    return outcome


def part_of(rank: int, ranks: int) -> slice:
    return slice(rank * BATCH // ranks, (rank + 1) * BATCH // ranks)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def one_rank(rank: int, ranks: int, port: int, results: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks
    )

    def average(gradient: Tensor) -> None:
        torch.distributed.all_reduce(gradient)
        gradient /= ranks

    outcome = {}
    for name, variant in CASES:
        method = make_method(name, variant)
        synchronize_statistics(method)
        outcome[name, variant] = take_steps(method, part_of(rank, ranks), variant, average)
    torch.save(outcome, results / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def outcomes(
    tmp_path_factory: pytest.TempPathFactory,
) -> list[dict[tuple[str, str], dict[str, Any]]]:
    """The outcome on each rank."""
    results = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(one_rank, (RANKS, free_port(), results), nprocs=RANKS)
    return [torch.load(results / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]


def leave(_gradient: Tensor) -> None:
    """Do nothing: one process does not average."""


@functools.cache
def one_process(name: str, variant: str) -> dict[str, Any]:
    whole = "group norm" if variant == "group norm, in chunks" else variant
    return take_steps(make_method(name, whole), slice(0, BATCH), whole, leave)


def assert_close(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """To 1e-7 of the largest value: DirectPred takes roots, and the root of rounding is 1.5e-8."""
    assert actual.keys() == expected.keys()
    floating = {key: value for key, value in expected.items() if value.is_floating_point()}
    scale = max(float(value.abs().max()) for value in floating.values())
    for key, value in floating.items():
        difference = float((actual[key] - value).abs().max())
        assert difference <= 1e-7 * scale, key


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_ranks_equal_one_process(
    name: str, variant: str, outcomes: list[dict[tuple[str, str], dict[str, Any]]]
) -> None:
    expected = one_process(name, variant)
    for each in outcomes:
        outcome = each[name, variant]
        torch.testing.assert_close(outcome["loss"], expected["loss"], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(outcome["terms"], expected["terms"], rtol=1e-9, atol=1e-9)
        assert torch.equal(outcome["index"], expected["index"])
        torch.testing.assert_close(outcome["z"], expected["z"], rtol=1e-9, atol=1e-9)
        assert_close(outcome["gradients"], expected["gradients"])
        # Weights, targets, running statistics and other buffers.
        assert_close(outcome["state"], expected["state"])


@pytest.mark.parametrize("name", METHODS)
def test_ranks_stay_equal_to_the_last_bit(
    name: str, outcomes: list[dict[tuple[str, str], dict[str, Any]]]
) -> None:
    for variant in (each for method, each in CASES if method == name):
        first = outcomes[0][name, variant]["state"]
        for each in outcomes[1:]:
            for key, value in each[name, variant]["state"].items():
                assert torch.equal(value, first[key]), key


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("vicreg", "group norm"),
        ("barlow_twins", "group norm"),
        ("simclr", "group norm"),
        ("contrastive", "group norm"),
        ("triplet", "group norm"),
        ("running_center", "group norm"),
        ("lejepa", SMALL_CROPS),
        ("swav", SMALL_CROPS),
        # Its loss is a mean over images, but its BatchNorm depends on the batch.
        ("byol", "batch norm"),
    ],
)
def test_averaging_the_ranks_own_gradients_is_not_the_same(name: str, variant: str) -> None:
    """The control: statistics of half the batch give another gradient, and the test detects it."""
    whole = one_process(name, variant)["gradients"]
    halves = [
        take_steps(make_method(name, variant), part_of(rank, 2), variant, leave)
        for rank in range(2)
    ]
    average = {
        key: (halves[0]["gradients"][key] + halves[1]["gradients"][key]) / 2 for key in whole
    }
    with pytest.raises(AssertionError):
        assert_close(average, whole)
