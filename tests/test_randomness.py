"""The counter-based generator: uniform, independent, only a function of its coordinates."""

import numpy as np
from scipy import stats

from noneg.randomness import hash_index, hash_key, permutation, uniform


def test_output_is_that_of_splitmix64s_authors() -> None:
    """Our streams start at a hashed state, but for state 0 the output has published values."""
    from noneg.randomness import _GOLDEN, _mix, _mix_integer

    first = int(_mix(np.array([_GOLDEN], dtype=np.uint64))[0])
    assert first == 0xE220A8397B1DCDAF
    assert _mix_integer(_GOLDEN) == first


def test_each_number_only_depends_on_its_image() -> None:
    index = np.array([5, 3, 1_000_000_007, 0])
    whole = uniform(hash_key(1, 2, 3), index, 7)
    for position, image in enumerate(index):
        alone = uniform(hash_key(1, 2, 3), image[None], 7)[0]
        assert np.array_equal(alone, whole[position])
    assert np.array_equal(uniform(hash_key(1, 2, 3), index, 9)[:, :7], whole)


def test_every_coordinate_changes_the_key() -> None:
    keys = {
        hash_key(seed, epoch, view) for seed in range(8) for epoch in range(8) for view in range(8)
    }
    assert len(keys) == 512
    assert hash_key(1, 2) != hash_key(2, 1)
    assert all(0 <= key < 2**63 for key in keys)


def test_no_two_images_share_a_number() -> None:
    hashed = hash_index(hash_key(0), np.arange(100_000), 2)
    assert len(np.unique(hashed)) == 200_000


def test_uniform() -> None:
    numbers = uniform(hash_key(7), np.arange(50_000), 3)
    assert numbers.dtype == np.float32
    assert float(numbers.min()) >= 0
    assert float(numbers.max()) < 1
    for column in numbers.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4
    # Neighboring images, columns, and keys are uncorrelated: 5 standard errors of 0.0045.
    other = uniform(hash_key(8), np.arange(50_000), 1)[:, 0]
    first = numbers[:, 0]
    for a, b in [(first[:-1], first[1:]), (first, numbers[:, 1]), (first, other)]:
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.0225


def test_permutation() -> None:
    order = permutation(hash_key(0, 1), 1000)
    assert sorted(order.tolist()) == list(range(1000))
    assert not np.array_equal(order, permutation(hash_key(0, 2), 1000))
    assert abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.15
