"""Thresholds from edited copies, groups that do not chain, and leaks between two collections."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pixel_encoder import pixel_encoder
from torch import nn

from noneg.collection.duplicates import (
    find_duplicates,
    find_leaks,
    group,
    measure_threshold,
)
from noneg.collection.edits import EDITS, edited
from noneg.collection.embedded import embed_collection
from noneg.collection.neighbors import nearest
from noneg.errors import NonegError
from noneg.images.shapes import draw_shapes


def on_circle(*degrees: float) -> np.ndarray:
    angle = np.deg2rad(np.array(degrees))
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def grouped(vectors: np.ndarray, threshold: float) -> list[tuple[int, ...]]:
    around = nearest(vectors, vectors, 16, same=True)
    return [each.members for each in group(vectors, around, threshold)]


def test_groups_do_not_chain() -> None:
    # Neighbors are 8 or 9 degrees apart, so that each is similar to the next one only.
    vectors = on_circle(0, 9, 17, 26, 90)
    assert grouped(vectors, np.cos(np.deg2rad(10))) == [(1, 2)]
    assert grouped(vectors, np.cos(np.deg2rad(17.5))) == [(0, 1, 2)]
    assert grouped(vectors, np.cos(np.deg2rad(30))) == [(0, 1, 2, 3)]
    assert grouped(vectors, 0.99999) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 360), min_size=2, max_size=14), st.floats(0.5, 0.999))
def test_all_members_of_a_group_are_similar_and_no_two_groups_could_be_one(
    degrees: list[float], threshold: float
) -> None:
    vectors = on_circle(*degrees)
    cosine = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    groups = grouped(vectors, threshold)
    members = [member for each in groups for member in each]
    assert len(members) == len(set(members))
    for each in groups:
        assert len(each) > 1
        assert min(cosine[one, two] for one, two in combinations(each, 2)) >= threshold - 1e-5
    alone = [(each,) for each in range(len(vectors)) if each not in members]
    for one, two in combinations([*groups, *alone], 2):
        assert cosine[np.ix_(one, two)].min() < threshold + 1e-5


def test_a_hundred_equal_images_are_one_group() -> None:
    vectors = np.concatenate([np.repeat(on_circle(0), 100, axis=0), on_circle(40, 80)])
    assert grouped(vectors, 0.99) == [tuple(range(100))]


def test_the_threshold_lets_few_other_images_pass() -> None:
    random = np.random.default_rng(0)
    copies = np.tanh(random.normal(4.0, 0.2, 4_000)).astype(np.float32)
    others = np.tanh(random.normal(1.0, 0.3, 4_000)).astype(np.float32)
    cut = measure_threshold(copies, others)
    # In arctanh: a thousandth of the others is above 1 + 3.090 * 0.3 = 1.927.
    assert np.arctanh(cut.cosine) == pytest.approx(1.927, abs=0.03)
    assert cut.found == 1
    assert cut.false == pytest.approx(0.001, abs=1e-6)


def test_the_threshold_is_lower_if_copies_need_it() -> None:
    random = np.random.default_rng(0)
    others = np.tanh(random.normal(1.0, 0.3, 4_000)).astype(np.float32)
    cut = measure_threshold(np.tanh(random.normal(2.1, 0.2, 4_000)).astype(np.float32), others)
    # 95 % of the copies are above 2.1 - 1.645 * 0.2 = 1.771.
    assert np.arctanh(cut.cosine) == pytest.approx(1.771, abs=0.03)
    assert cut.found == pytest.approx(0.95, abs=0.001)
    assert cut.false == pytest.approx(0.0051, abs=0.001)


def test_where_copies_and_others_overlap_few_false_ones_count_more() -> None:
    random = np.random.default_rng(0)
    others = np.tanh(random.normal(1.0, 0.3, 4_000)).astype(np.float32)
    cut = measure_threshold(np.tanh(random.normal(1.7, 0.2, 4_000)).astype(np.float32), others)
    assert np.arctanh(cut.cosine) == pytest.approx(1.698, abs=0.03)
    assert cut.found == pytest.approx(0.5, abs=0.06)
    assert cut.false == pytest.approx(0.01, abs=1e-6)


def test_duplicates_in_the_collection_hardly_raise_the_threshold() -> None:
    random = np.random.default_rng(0)
    copies = np.tanh(random.normal(4.0, 0.2, 400)).astype(np.float32)
    others = np.tanh(random.normal(1.0, 0.3, 4_000)).astype(np.float32)
    before = np.arctanh(measure_threshold(copies, others).cosine)
    others[:600] = 0.9999
    after = np.arctanh(measure_threshold(copies, others).cosine)
    assert after - before < 0.4
    # The mean and the standard deviation would be moved far.
    fisher = np.arctanh(others)
    assert fisher.mean() + 3.090 * fisher.std() > 1.927 + 2


@pytest.fixture
def shapes() -> np.ndarray:
    return draw_shapes(300, 0).pixels


def test_constructed_duplicates_are_found_and_others_are_not(shapes: np.ndarray) -> None:
    copied = edited(shapes[:40], seed=7)
    images = np.concatenate([shapes, copied]).transpose(0, 2, 3, 1)
    encoder = pixel_encoder()
    groups, cut = find_duplicates(encoder, embed_collection(encoder, images))
    expected = {(number, 300 + number) for number in range(40)}
    found = {each.members for each in groups}
    assert cut.found is not None
    assert len(found & expected) >= 30
    assert len(found - expected) <= 6


def test_leaks_are_named_from_both_sides(shapes: np.ndarray) -> None:
    encoder = pixel_encoder()
    train = embed_collection(encoder, shapes[:200].transpose(0, 2, 3, 1))
    other = np.concatenate([shapes[200:], shapes[[5, 17]]]).transpose(0, 2, 3, 1)
    leaks, _ = find_leaks(encoder, train, embed_collection(encoder, other))
    assert {(leak.first, leak.second) for leak in leaks[:2]} == {(5, 100), (17, 101)}
    assert all(leak.cosine > 0.9999 for leak in leaks[:2])
    none, cut = find_leaks(
        encoder, train, embed_collection(encoder, other[:100]), threshold=0.99999
    )
    assert none == []
    assert "as asked" in cut.describe()


def test_an_encoder_that_sees_nothing_says_so(shapes: np.ndarray) -> None:
    """Of an encoder of noise, copies are no more similar than others: few are found."""

    class Noise(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.randn(len(images), 16)

    encoder = pixel_encoder(Noise(), features=16)
    torch.manual_seed(0)
    collection = embed_collection(encoder, shapes.transpose(0, 2, 3, 1))
    groups, cut = find_duplicates(encoder, collection)
    assert cut.found is not None
    assert cut.found < 0.05
    assert len(groups) < 15


def test_thresholds_that_are_no_cosine_and_single_images_are_refused(
    shapes: np.ndarray,
) -> None:
    encoder = pixel_encoder()
    images = embed_collection(encoder, shapes[:3].transpose(0, 2, 3, 1))
    with pytest.raises(NonegError, match="no cosine"):
        find_duplicates(encoder, images, threshold=1.5)
    with pytest.raises(NonegError, match="at least two"):
        find_duplicates(encoder, embed_collection(encoder, shapes[:1].transpose(0, 2, 3, 1)))


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_edits_change_a_picture_a_little(edit: object, channels: int) -> None:
    assert callable(edit)
    pixels = np.repeat(draw_shapes(1, 0).pixels[0].mean(axis=0)[None], channels, 0).astype(np.uint8)
    after = edit(pixels, np.random.default_rng(0))
    assert (after.shape, after.dtype) == (pixels.shape, np.uint8)
    difference = np.abs(after.astype(int) - pixels).mean()
    assert 0 < difference < 40
