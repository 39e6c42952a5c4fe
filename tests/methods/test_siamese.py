"""The negative control: only agreement, on the representation or behind a head."""

from typing import Any

import pytest
import torch
from test_contract import build, make_views, train_briefly
from torch import nn

from noneg.diagnostics import normalized_std
from noneg.methods.siamese import Siamese


def siamese(**options: Any) -> Siamese:
    method = build("siamese", **options)
    assert isinstance(method, Siamese)
    return method


def test_the_loss_lies_on_the_representation() -> None:
    e = siamese().embed(make_views())
    assert torch.equal(e.z, e.h)


def test_behind_a_head_it_lies_there() -> None:
    method = siamese(head=(12, 6))
    e = method.embed(make_views())
    assert e.h.shape == (2, 12, 16)
    assert e.z.shape == (2, 12, 6)
    loss = method.objective(e)
    torch.testing.assert_close(loss.value, (e.z[0] - e.z[1]).square().mean())


@pytest.mark.parametrize(
    ("head_norm", "norms"), [("none", []), ("hidden", [True]), ("output", [True, False])]
)
def test_the_heads_norms(head_norm: str, norms: list[bool]) -> None:
    """How many there are, and which have scale and shift."""
    head = siamese(head=(12, 6), head_norm=head_norm).head
    assert [each.affine for each in head.modules() if isinstance(each, nn.BatchNorm1d)] == norms


def test_a_norm_at_the_end_holds_the_spread_of_each_coordinate() -> None:
    """The closed form: plain BatchNorm has a variance of 1, so it cannot be constant."""
    for head_norm, low, high in (("none", 0.0, 0.1), ("output", 0.3, 2.0)):
        method = siamese(head=(12, 6), head_norm=head_norm)
        train_briefly(method, 60)
        z = method.embed(make_views(seed=99)).z[0].detach()
        assert low <= normalized_std(z) < high
        if head_norm == "output":
            torch.testing.assert_close(z.var(dim=0, correction=0), torch.ones(6), rtol=0.02, atol=0)
