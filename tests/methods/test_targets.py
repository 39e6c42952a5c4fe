"""Targets follow by a moving average, with the decay that each method says."""

import math
from typing import Any

import pytest
import torch
from test_contract import build
from torch import nn

from noneg.methods import list_methods

# Options, how the decay of 0.6 goes on over the run, and the parts that the target is a copy of.
FOLLOWING: list[tuple[str, dict[str, Any], str, tuple[str, ...]]] = [
    ("byol", {"tau": 0.6}, "cosine", ("backbone", "projector")),
    ("byol", {"tau": 0.6, "tau_constant": True}, "constant", ("backbone", "projector")),
    ("dino", {"tau": 0.6}, "cosine", ("backbone", "projector", "prototypes")),
    ("directpred", {"tau": 0.6}, "constant", ("backbone", "projector")),
    ("i_jepa", {"tau": 0.6}, "linear", ("backbone",)),
    ("moco", {"momentum": 0.6}, "constant", ("backbone", "projector")),
    ("simdino", {"tau": 0.6}, "cosine", ("backbone", "projector")),
    ("ssl_hsic", {"tau": 0.6}, "cosine", ("backbone", "projector")),
    ("tico", {"tau": 0.6}, "cosine", ("backbone", "projector")),
]


def decay_at(progress: float, course: str) -> float:
    if course == "constant":
        return 0.6
    if course == "linear":
        return 0.6 + 0.4 * progress
    return 1 - 0.4 * (1 + math.cos(math.pi * progress)) / 2


def test_every_method_with_a_target_is_here() -> None:
    with_target = {name for name in list_methods() if hasattr(build(name), "target")}
    assert {name for name, *_ in FOLLOWING} == with_target


# In the middle, a line and a cosine are equal.
@pytest.mark.parametrize("progress", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize(
    ("name", "options", "course", "parts"),
    FOLLOWING,
    ids=[f"{name}-{course}" for name, _, course, _ in FOLLOWING],
)
def test_the_decay_of_the_target(
    name: str, options: dict[str, Any], course: str, parts: tuple[str, ...], progress: float
) -> None:
    method = build(name, **options).double()
    online = nn.Sequential(*(method.get_submodule(part) for part in parts)).state_dict()
    target = method.get_submodule("target").state_dict()
    assert target.keys() == online.keys()
    floating = [key for key, value in target.items() if value.is_floating_point()]
    for key in floating:
        # At the start they would be equal.
        target[key].uniform_(1, 2)
    before = {key: target[key].clone() for key in floating}
    method.after_step(progress)
    tau = decay_at(progress, course)
    for key in floating:
        expected = tau * before[key] + (1 - tau) * online[key]
        torch.testing.assert_close(target[key], expected, rtol=1e-12, atol=1e-12, msg=key)
