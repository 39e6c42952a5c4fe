"""Wrong labels are found, rare ones are not suspected for being rare; the graph is exact."""

import numpy as np
import pytest
from test_neighbors import brute_force

from noneg.collection.label_errors import doubt_labels, knn_graph
from noneg.collection.neighbors import comparable
from noneg.errors import NonegError


def points(sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    centers = 4 * np.eye(10)[: len(sizes)]
    found = centers[labels] + random.normal(size=(len(labels), 10))
    return found.astype(np.float32), labels


def test_changed_labels_are_suspected_first_with_the_right_suggestion() -> None:
    embeddings, labels = points((80, 80, 80))
    wrong = np.array([3, 50, 90, 150, 200, 230])
    changed = labels.copy()
    changed[wrong] = (changed[wrong] + 1) % 3
    doubts = doubt_labels(embeddings, changed)
    assert set(doubts.order()[:6]) == set(wrong)
    assert (doubts.suggested[wrong] == labels[wrong]).all()
    assert len(doubts.order()) < 25
    assert ((doubts.own >= 0) & (doubts.own + doubts.share <= 1 + 1e-6)).all()


def test_a_rare_class_is_not_suspected_for_being_rare() -> None:
    embeddings, labels = points((300, 8))
    # Eight images, of which each has only seven neighbors of its own class among twenty.
    assert not set(doubt_labels(embeddings, labels).order()) & set(range(300, 308))


def test_the_graph_has_the_nearest_in_each_row() -> None:
    embeddings, _ = points((30, 30))
    graph = knn_graph(embeddings, 5)
    (vectors,) = comparable(embeddings)
    expected = brute_force(vectors, vectors, 5, True)
    assert graph.shape == (60, 60)
    assert (graph.indices.reshape(60, 5) == expected).all()
    distances = graph.data.reshape(60, 5)
    assert (np.diff(distances, axis=1) >= 0).all()
    np.testing.assert_allclose(distances[0, 0], 1 - vectors[0] @ vectors[expected[0, 0]], atol=1e-6)


def test_equal_images_are_neighbors_in_the_graph() -> None:
    embeddings, _ = points((10, 10))
    embeddings[1] = embeddings[0]
    assert knn_graph(embeddings, 3)[0, 1] > 0


def test_one_class_is_refused() -> None:
    with pytest.raises(NonegError, match="at least two"):
        doubt_labels(points((5,))[0], np.zeros(5, dtype=np.int64))


def test_cleanlab_takes_the_graph() -> None:
    cleanlab = pytest.importorskip("cleanlab", reason="cleanlab is not installed")
    pytest.importorskip("datasets", reason="cleanlab[datalab] is not installed")
    embeddings, labels = points((60, 60, 60))
    strange, copy = 7, 100
    embeddings[strange] = 40
    embeddings[copy] = embeddings[101]
    datalab = cleanlab.Datalab({"label": labels.tolist()}, label_name="label", verbosity=0)
    datalab.find_issues(
        knn_graph=knn_graph(embeddings, 10), issue_types={"outlier": {}, "near_duplicate": {}}
    )
    outliers = datalab.get_issues("outlier")
    assert outliers["outlier_score"].to_numpy().argmin() == strange
    duplicates = datalab.get_issues("near_duplicate")
    assert set(np.flatnonzero(duplicates["is_near_duplicate_issue"])) == {copy, 101}
