"""A teacher sees the large crops alone, and every view learns from them."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from test_contract import build, gradients, make_views

from noneg.methods.base import Embeddings, large_views, means_of_others
from noneg.networks.heads import Prototypes
from noneg.training.step import compute_gradient

LARGE = make_views()
SMALL = tuple(view[:, :, :6, :6] for view in make_views(seed=1))


def test_large_views_are_the_first_of_one_size() -> None:
    assert len(large_views((*LARGE, *SMALL))) == 2
    assert len(large_views(SMALL)) == 2
    # A large view after a small one is not counted: targets belong to the first views.
    assert len(large_views((LARGE[0], *SMALL, LARGE[1]))) == 1


@pytest.mark.parametrize(
    "name", ["byol", "directpred", "tico", "ssl_hsic", "dino", "simdino", "moco"]
)
def test_the_teacher_never_sees_a_small_crop(name: str) -> None:
    method = build(name)
    sides: list[int] = []
    target = method.get_submodule("target")
    target.register_forward_pre_hook(lambda _module, images: sides.append(images[0].shape[-1]))
    compute_gradient(method, (*LARGE, *SMALL), torch.arange(12))
    assert sides == [8, 8]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("byol", {"target": "copy"}),
        ("byol", {"stop_gradient": False}),
        ("directpred", {"target": "copy"}),
        ("simsiam", {}),
        ("simsiam", {"hold": 5}),
        ("simsiam", {"stop_gradient": False}),
        ("fastsiam", {}),
        ("simsiam_em", {}),
    ],
)
def test_without_a_teacher_small_crops_are_no_targets_either(
    name: str, options: dict[str, Any]
) -> None:
    e = build(name, **options).embed((*LARGE, *SMALL))
    assert e.t is not None
    torch.testing.assert_close(e.t.detach(), e.z[:2].detach())
    if e.p is None:
        return
    # With a predictor, projections are targets alone: those of small crops change nothing.
    e = Embeddings(h=e.h, z=e.z.detach(), p=e.p.detach(), t=e.t.detach())
    other = replace(e, z=torch.cat([e.z[:2], e.z[2:].roll(1, dims=1)]))
    values = [float(build(name, **options).objective(each).value) for each in (e, other)]
    assert values[0] == values[1]


def test_the_mean_of_other_targets() -> None:
    targets = torch.tensor([1.0, 3.0, 8.0])[:, None, None]
    means = means_of_others(targets, 5).flatten().tolist()
    assert means == [5.5, 4.5, 2.0, 4.0, 4.0]


def test_byol_compares_every_view_with_the_large_ones() -> None:
    """Six pairs of different views: two targets, four predictions."""
    method = build("byol")
    with torch.no_grad():
        e = method.embed((*LARGE, *SMALL))
    assert e.p is not None
    assert e.t is not None
    cosines = torch.nn.functional.cosine_similarity(e.p[:, None], e.t[None], dim=-1).mean(dim=2)
    expected = 4 * (1 - (cosines.sum() - cosines.trace()) / 6)
    torch.testing.assert_close(method.objective(e).value, expected)


@pytest.mark.parametrize("name", ["lejepa", "visreg"])
def test_the_mean_is_that_of_the_large_views(name: str) -> None:
    method = build(name)
    with torch.no_grad():
        e = method.embed((*LARGE, *SMALL))
    apart = (e.z - (e.z[0] + e.z[1]) / 2).square().mean()
    invariance = method.objective(e).terms["invariance"]
    torch.testing.assert_close(invariance, apart * (0.98 if name == "lejepa" else 0.1))


@pytest.mark.parametrize("name", ["swav", "dino"])
def test_prototypes_are_fixed_at_the_start(name: str) -> None:
    method = build(name, fixed=0.5)
    compute_gradient(method, LARGE, torch.arange(12))
    held = gradients(method)["prototypes.weight"]
    assert not held.any()
    # A run that continues a finished one begins as that one did.
    method.after_step(1.0)
    method.begin_again()
    method.zero_grad()
    compute_gradient(method, LARGE, torch.arange(12))
    assert not gradients(method)["prototypes.weight"].any()
    method.zero_grad()
    method.after_step(0.6)
    compute_gradient(method, LARGE, torch.arange(12))
    assert gradients(method)["prototypes.weight"].any()


def test_prototypes_give_cosines() -> None:
    prototypes, z = Prototypes(3, 5), torch.randn(4, 3)
    cosines = torch.nn.functional.cosine_similarity(z[:, None], prototypes.weight[None], dim=2)
    torch.testing.assert_close(prototypes(7 * z), cosines)
