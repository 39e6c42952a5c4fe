"""Options outside their range are refused in a sentence that names the flag."""

import dataclasses
import math
from typing import Any

import pytest

from noneg.errors import NonegError
from noneg.methods import describe_method, find_method, list_methods
from noneg.training.config import make_config


@pytest.mark.parametrize(
    ("method", "options", "told"),
    [
        ("simclr", {"temperature": 0.0}, "--options.temperature must be a number above 0, not 0"),
        ("dino", {"target_temperature": math.nan}, "must be a number above 0, not nan"),
        ("lejepa", {"slices": 0}, "--options.slices must be 1 or more, not 0"),
        ("swav", {"queue": -1}, "--options.queue must be 0 or more, not -1"),
        ("vicreg", {"invariance": -25.0}, "--options.invariance must be 0 or more, not -25"),
        ("vicreg", {"variance": math.inf}, "--options.variance must be 0 or more, not inf"),
        ("vicreg", {"projector": ()}, r"--options.projector must be 1 or more, not \[\]"),
        ("vicreg", {"projector": (8, 0)}, r"--options.projector must be 1 or more, not \[8, 0\]"),
        ("byol", {"tau": 1.5}, r"--options.tau must be in \[0, 1\], not 1.5"),
        ("i_jepa", {"target_scale": (0.4, 0.2)}, r"--options.target-scale .* not \[0.4, 0.2\]"),
        ("i_jepa", {"context_scale": (0.5, 2.0)}, "--options.context-scale .* at most 1"),
        ("simsiam", {"hold": 0}, "--options.hold must be at least 1"),
        ("simsiam", {"hold": 2, "stop_gradient": False}, "--options.stop-gradient true"),
    ],
)
def test_a_value_outside_the_range_is_refused(
    method: str, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(NonegError, match=told):
        make_config(method=method, options=options)


def without_limits(kind: type) -> list[str]:
    """Numbers that may have any value, for example below 0."""
    free = []
    for field in dataclasses.fields(kind):
        usual = getattr(kind(), field.name)
        if isinstance(usual, bool | str) or usual is None:
            continue
        worse = tuple(-each for each in usual) if isinstance(usual, tuple) else -abs(usual) - 1
        try:
            dataclasses.replace(kind(), **{field.name: worse})
        except NonegError:
            continue
        free.append(field.name)
    return free


@pytest.mark.parametrize("name", list_methods())
def test_every_number_of_every_method_has_a_limit(name: str) -> None:
    # A bare siamese network has no head.
    known = {"siamese": ["head"]}
    assert without_limits(find_method(name).options) == known.get(name, [])
    assert without_limits(describe_method(name).options) == known.get(name, [])
