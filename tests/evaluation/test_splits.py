"""The stratified fifth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noneg.evaluation.splits import every_fifth


@settings(max_examples=50, deadline=None)
@given(counts=st.lists(st.integers(0, 23), min_size=1, max_size=6), seed=st.integers(0, 1000))
def test_every_class_gives_a_fifth(counts: list[int], seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    marked = every_fifth(labels, seed=seed)
    assert abs(marked.sum() - len(labels) / 5) < 1
    for label, count in enumerate(counts):
        assert abs(marked[labels == label].sum() - count / 5) < 1


def test_the_seed_decides() -> None:
    labels = np.repeat(np.arange(4), 50)
    assert np.array_equal(every_fifth(labels, seed=1), every_fifth(labels, seed=1))
    common = (every_fifth(labels, seed=1) & every_fifth(labels, seed=2)).sum()
    # Two independent choices of 40 out of 200 share 8 on average.
    assert common == pytest.approx(8, abs=8)
