"""The nearest are those of a brute-force search in float64, however the work is divided."""

import numpy as np
import pytest

from noneg.collection import neighbors
from noneg.collection.neighbors import comparable, nearest
from noneg.errors import NonegError


def directions(count: int, width: int = 8, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def brute_force(queries: np.ndarray, bank: np.ndarray, k: int, same: bool) -> np.ndarray:
    cosine = queries.astype(np.float64) @ bank.astype(np.float64).T
    if same:
        np.fill_diagonal(cosine, -np.inf)
    return np.argsort(-cosine, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize(("bank", "k"), [(1, 1), (7, 3), (7, 7), (7, 20), (3_000, 5), (3_011, 11)])
@pytest.mark.parametrize(("columns", "cosines"), [(2**16, 2**24), (1_000, 5_000), (5, 64)])
def test_they_equal_a_brute_force_search(
    bank: int, k: int, columns: int, cosines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbors, "_COLUMNS", columns)
    monkeypatch.setattr(neighbors, "_COSINES", cosines)
    images, queries = directions(bank), directions(23, seed=1)
    found = nearest(queries, images, k)
    expected = brute_force(queries, images, min(k, bank), False)
    assert (found.index == expected).all()
    products = np.take_along_axis(queries @ images.T, expected, axis=1)
    np.testing.assert_allclose(found.cosine, products, atol=1e-6)


@pytest.mark.parametrize(("columns", "cosines"), [(2**16, 2**24), (64, 640), (7, 21)])
def test_no_image_is_its_own_neighbor(
    columns: int, cosines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbors, "_COLUMNS", columns)
    monkeypatch.setattr(neighbors, "_COSINES", cosines)
    images = directions(150)
    images[1::2] = images[::2]
    found = nearest(images, images, 4, same=True)
    assert (found.index != np.arange(150)[:, None]).all()
    # The copy is the nearest.
    assert (found.index[:, 0] == np.arange(150) ^ 1).all()
    assert (nearest(images, images, 1).cosine > 1 - 1e-6).all()


def test_equal_ones_are_in_the_order_of_the_bank() -> None:
    images = np.repeat(directions(2), 3, axis=0)
    assert nearest(images[:1], images, 3).index.tolist() == [[0, 1, 2]]


def test_one_image_has_no_neighbor() -> None:
    with pytest.raises(NonegError, match="two images"):
        nearest(directions(1), directions(1), 1, same=True)


def test_cosines_of_comparable_vectors_ignore_shift_rotation_and_scale() -> None:
    random = np.random.default_rng(0)
    bank = (random.normal(size=(60, 6)) * [9, 5, 3, 2, 1, 0.5]).astype(np.float32)
    others = random.normal(size=(5, 6)).astype(np.float32), bank[:2]
    rotation = np.linalg.qr(random.normal(size=(6, 6)))[0]

    def moved(vectors: np.ndarray) -> np.ndarray:
        return (3 * vectors @ rotation + 40).astype(np.float32)

    before = comparable(bank, *others)
    after = comparable(moved(bank), *map(moved, others))
    assert [len(each) for each in before] == [60, 5, 2]
    for one, two in zip(before, after, strict=True):
        np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(one @ before[0].T, two @ after[0].T, atol=2e-3)
    # The same image has the same vector, in the bank or not.
    np.testing.assert_allclose(before[2], before[0][:2], atol=1e-5)
