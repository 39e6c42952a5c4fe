"""Which images are chosen, against the definitions and by brute force."""

import numpy as np
import pytest

from noneg.collection.clusters import find_clusters, leading_directions
from noneg.collection.outliers import strangeness
from noneg.collection.selection import Strategy, select
from noneg.errors import NonegError


def blobs(sizes: tuple[int, ...], spread: float = 0.1, width: int = 12) -> np.ndarray:
    random = np.random.default_rng(0)
    centers = np.linalg.qr(random.normal(size=(width, width)))[0][: len(sizes)]
    points = [
        center + spread * random.normal(size=(n, width))
        for n, center in zip(sizes, centers, strict=True)
    ]
    return np.concatenate(points).astype(np.float32)


def blob_of(sizes: tuple[int, ...]) -> np.ndarray:
    return np.repeat(np.arange(len(sizes)), sizes)


SIZES = (90, 60, 40, 30, 20)


@pytest.mark.parametrize("strategy", ["typical", "herding"])
def test_each_group_gives_one_image_before_any_gives_two(strategy: Strategy) -> None:
    chosen = select(blobs(SIZES), 5, strategy=strategy)
    assert sorted(blob_of(SIZES)[chosen]) == [0, 1, 2, 3, 4]
    # By chance that happens in 4 % of cases.
    chance = [
        sorted(blob_of(SIZES)[select(blobs(SIZES), 5, strategy="random", seed=s)])
        for s in range(20)
    ]
    assert sum(each == [0, 1, 2, 3, 4] for each in chance) < 10


def test_the_typical_image_of_the_largest_group_comes_first() -> None:
    points = blobs((60, 30), spread=0.2)
    first = int(select(points, 2)[0])
    assert first < 60
    # It is nearer to its neighbors than most others of the group.
    strange = strangeness(points)[:60]
    assert (strange < strange[first]).mean() < 0.3


@pytest.mark.parametrize("strategy", ["typical", "herding"])
def test_groups_with_a_label_wait(strategy: Strategy) -> None:
    labels = np.full(sum(SIZES), -1)
    labels[[0, 95]] = 0
    chosen = select(blobs(SIZES), 3, strategy=strategy, labels=labels)
    if strategy == "typical":
        assert sorted(blob_of(SIZES)[chosen]) == [2, 3, 4]
    else:
        # A large group may deserve a second label before a small one has its first.
        assert 2 in blob_of(SIZES)[chosen]
    everything = select(blobs(SIZES), sum(SIZES) - 2, strategy=strategy, labels=labels)
    assert sorted([*everything.tolist(), 0, 95]) == list(range(sum(SIZES)))


def test_herding_is_the_greedy_choice() -> None:
    random = np.random.default_rng(1)
    embeddings = random.normal(size=(80, 10)).astype(np.float32)
    points = leading_directions(embeddings, 64, 0)
    kernel = np.exp(points.astype(np.float64) @ points.T.astype(np.float64) - 1)
    covered, expected = np.zeros(80), []
    for _ in range(12):
        gain = np.maximum(kernel - covered, 0).sum(axis=1)
        gain[expected] = -1
        expected.append(int(gain.argmax()))
        covered = np.maximum(covered, kernel[expected[-1]])
    assert select(embeddings, 12, strategy="herding").tolist() == expected


def test_margin_takes_what_is_between_the_classes() -> None:
    embeddings = np.linspace(-1, 1, 41, dtype=np.float32)[:, None].repeat(2, axis=1)
    embeddings[:, 1] *= -1
    labels = np.full(41, -1)
    labels[:5], labels[-5:] = 0, 1
    chosen = select(embeddings, 3, strategy="margin", labels=labels)
    assert sorted(chosen) == [19, 20, 21]
    with pytest.raises(NonegError, match="two classes"):
        select(embeddings, 3, strategy="margin")


def test_random_choices_differ_by_their_seed_and_repeat() -> None:
    embeddings = blobs((50,))
    one, two = (select(embeddings, 20, strategy="random", seed=seed) for seed in (0, 1))
    assert len(set(one.tolist())) == 20
    assert set(one.tolist()) != set(two.tolist())
    assert (one == select(embeddings, 20, strategy="random", seed=0)).all()


@pytest.mark.parametrize("count", [0, 5])
def test_more_images_than_there_are_cannot_be_chosen(count: int) -> None:
    with pytest.raises(NonegError, match="from 1"):
        select(blobs((4,)), count)


def test_the_number_of_clusters_is_found_and_the_largest_is_the_first() -> None:
    found = find_clusters(blobs(SIZES))
    assert (found == blob_of(SIZES)).all()
    assert len(set(find_clusters(blobs(SIZES), count=3).tolist())) == 3
    assert set(find_clusters(blobs((9,)), count=1).tolist()) == {0}


def test_hdbscan_leaves_odd_images_out() -> None:
    points = blobs(SIZES, spread=0.05)
    # Directions that no group has.
    _, _, rest = np.linalg.svd(points)
    points = np.concatenate([points, rest[-2:].astype(np.float32)])
    found = find_clusters(points, algorithm="hdbscan")
    assert (found[-2:] == -1).all()
    assert len(set(found[:-2].tolist()) - {-1}) == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 5, "algorithm": "hdbscan"}, "leave --count out"),
        ({"count": 0}, "from 1"),
        ({"count": 300}, "from 1"),
    ],
)
def test_numbers_of_clusters_that_cannot_be(settings: dict[str, object], message: str) -> None:
    with pytest.raises(NonegError, match=message):
        find_clusters(blobs(SIZES), **settings)  # type: ignore[arg-type]
    with pytest.raises(NonegError, match="at least three"):
        find_clusters(blobs((2,)))


def test_the_image_that_is_alone_is_the_strangest() -> None:
    points = blobs(SIZES)
    points[100] = -points[100]
    assert int(strangeness(points).argmax()) == 100
