"""Two processes with different data give the loss and the gradients of one process on all of it."""

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from test_contract import build, gradients, make_views

from noneg.methods import list_methods
from noneg.training.step import compute_gradient

RANKS = 2
BATCH = 12


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _one_rank(rank: int, port: int, results: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=RANKS
    )
    local = slice(rank * BATCH // RANKS, (rank + 1) * BATCH // RANKS)
    outcome = {}
    for name in list_methods():
        # Without batch statistics: SyncBatchNorm, which would share them, needs a GPU.
        method = build(name).eval()
        views = tuple(view[local] for view in make_views())
        step, _ = compute_gradient(method, views, torch.arange(BATCH)[local])
        averaged = {}
        for key, gradient in gradients(method).items():
            torch.distributed.all_reduce(gradient)
            averaged[key] = gradient / RANKS
        terms = {key: value.detach() for key, value in step.terms.items()}
        outcome[name] = {"loss": step.loss.detach(), "terms": terms, "gradients": averaged}
    torch.save(outcome, results / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, object]]]:
    results = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(_one_rank, (_free_port(), results), nprocs=RANKS)
    return [torch.load(results / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]


@pytest.mark.parametrize("name", list_methods())
@pytest.mark.parametrize("rank", range(RANKS))
def test_two_ranks_equal_one_process(
    name: str, rank: int, outcomes: list[dict[str, dict[str, object]]]
) -> None:
    whole = build(name).eval()
    step, _ = compute_gradient(whole, make_views(), torch.arange(BATCH))
    outcome = outcomes[rank][name]
    torch.testing.assert_close(outcome["loss"], step.loss.detach())
    for key, term in step.terms.items():
        torch.testing.assert_close(outcome["terms"][key], term.detach())  # type: ignore[index]
    expected = gradients(whole)
    scale = max(float(gradient.abs().max()) for gradient in expected.values())
    for key, gradient in expected.items():
        difference = (outcome["gradients"][key] - gradient).abs().max()  # type: ignore[index]
        assert float(difference) <= 1e-5 * scale, key


@pytest.mark.parametrize("name", ["vicreg", "barlow_twins"])
def test_averaging_the_ranks_own_losses_is_not_the_same(name: str) -> None:
    """The control: without the gather, statistics of half the batch give another gradient."""
    whole, local = build(name).eval(), build(name).eval()
    compute_gradient(whole, make_views(), torch.arange(BATCH))
    for rank in range(RANKS):
        part = slice(rank * BATCH // RANKS, (rank + 1) * BATCH // RANKS)
        views = tuple(view[part] for view in make_views())
        compute_gradient(local, views, torch.arange(6), lambda loss: (loss / RANKS).backward())
    expected, actual = gradients(whole), gradients(local)
    scale = max(float(gradient.abs().max()) for gradient in expected.values())
    assert any(float((actual[key] - expected[key]).abs().max()) > 1e-2 * scale for key in expected)
