"""The nearest-neighbor probe against a float64 transcription and cases computed by hand."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from noneg.errors import NonegError
from noneg.evaluation import knn
from noneg.evaluation.knn import knn_accuracy


def transcription(
    bank: np.ndarray,
    bank_labels: np.ndarray,
    queries: np.ndarray,
    query_labels: np.ndarray,
    k: int,
    temperature: float,
) -> float:
    """Wu et al. 2018, section 3.4, one query and one neighbor at a time."""
    correct = 0
    for query, label in zip(queries, query_labels, strict=True):
        cosines = [
            float(query @ image / (np.linalg.norm(query) * np.linalg.norm(image))) for image in bank
        ]
        votes: dict[int, float] = {}
        for index in sorted(range(len(bank)), key=lambda i: -cosines[i])[:k]:
            votes.setdefault(int(bank_labels[index]), 0.0)
            votes[int(bank_labels[index])] += math.exp(cosines[index] / temperature)
        correct += max(sorted(votes), key=lambda name: votes[name]) == label
    return correct / len(queries)


def noisy_classes(
    images: int, seed: int, classes: int = 5, width: int = 8, noise: float = 1.5
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    labels = torch.randint(0, classes, (images,), generator=generator)
    return centers[labels] + noise * torch.randn(images, width, generator=generator), labels


@pytest.mark.parametrize("k", [1, 7, 20, 150])
@pytest.mark.parametrize("temperature", [0.01, 0.07, 10.0])
def test_agrees_with_the_transcription(k: int, temperature: float) -> None:
    bank, bank_labels = noisy_classes(150, 1)
    queries, query_labels = noisy_classes(200, 2)
    expected = transcription(
        bank.double().numpy(),
        bank_labels.numpy(),
        queries.double().numpy(),
        query_labels.numpy(),
        k,
        temperature,
    )
    assert 0.15 < expected < 0.95
    accuracy = knn_accuracy(bank, bank_labels, queries, query_labels, k=k, temperature=temperature)
    assert accuracy == expected


def test_the_nearest_outvotes_two_when_the_temperature_is_small() -> None:
    # Cosines 1, 0.6, 0.6: e^(1/T) > 2 e^(0.6/T) if T < 0.4 / log 2 = 0.577.
    bank = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.6, -0.8]])
    labels = torch.tensor([0, 1, 1])
    query, zero = torch.tensor([[5.0, 0.0]]), torch.tensor([0])
    assert knn_accuracy(bank, labels, query, zero, k=3, temperature=0.57) == 1.0
    assert knn_accuracy(bank, labels, query, zero, k=3, temperature=0.58) == 0.0
    assert knn_accuracy(bank, labels, query, zero, k=3, temperature=1e-4) == 1.0


def test_order_scale_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, bank_labels = noisy_classes(150, 3)
    queries, query_labels = noisy_classes(90, 4)
    accuracy = knn_accuracy(bank, bank_labels, queries, query_labels)
    generator = torch.Generator().manual_seed(5)
    order = torch.randperm(150, generator=generator)
    other = torch.randperm(90, generator=generator)
    lengths = torch.rand(150, 1, generator=generator) + 0.1
    assert accuracy == knn_accuracy(
        lengths * bank[order], bank_labels[order], 1e3 * queries[other], query_labels[other]
    )
    monkeypatch.setattr(knn, "SIMILARITIES_PER_BLOCK", 7 * 150)
    assert accuracy == knn_accuracy(bank, bank_labels, queries, query_labels)


def test_shuffled_labels_give_chance() -> None:
    bank, bank_labels = noisy_classes(1000, 6, noise=0.3)
    queries, query_labels = noisy_classes(1000, 7, noise=0.3)
    assert knn_accuracy(bank, bank_labels, queries, query_labels) > 0.95
    shuffled = bank_labels[torch.randperm(1000, generator=torch.Generator().manual_seed(8))]
    assert knn_accuracy(bank, shuffled, queries, query_labels) < 0.35


@pytest.mark.parametrize("entries", [2**25, 8])
def test_ties_go_to_the_first_of_the_bank(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "SIMILARITIES_PER_BLOCK", entries)
    equal = torch.ones(500, 4)
    labels = torch.full((500,), 1)
    labels[:20] = 2
    queries = torch.ones(6, 4)
    assert knn_accuracy(equal, labels, queries, torch.full((6,), 2), k=20) == 1.0
    assert knn_accuracy(equal, labels, queries, torch.full((6,), 1), k=41) == 1.0
    # One image is nearer than the equal ones. The first two of those have classes 0 and 1; the last
    # two would let class 2 win.
    bank = torch.tensor([[0.0, 1.0]] * 4 + [[1.0, 0.0]])
    bank_labels = torch.tensor([0, 1, 2, 2, 3])
    query, three = torch.tensor([[1.0, 0.0]]), torch.tensor([3])
    assert knn_accuracy(bank, bank_labels, query, three, k=3, temperature=1e3) == 1.0


def test_equal_votes_go_to_the_lower_label() -> None:
    bank, labels = torch.ones(4, 2), torch.tensor([3, 1, 3, 1])
    assert knn_accuracy(bank, labels, torch.ones(1, 2), torch.tensor([1]), k=4) == 1.0


def test_a_class_that_is_not_in_the_bank_counts_as_an_error() -> None:
    bank, labels = torch.eye(3), torch.tensor([0, 1, 2])
    assert knn_accuracy(bank, labels, torch.eye(3), torch.tensor([0, 1, 7]), k=1) == 2 / 3


def test_features_are_not_centered() -> None:
    # The query has the direction of the first image from the origin, but of the second from the
    # mean.
    bank = torch.tensor([[10.0, 10.0], [10.0, 12.0]])
    query = torch.tensor([[12.0, 12.1]])
    assert knn_accuracy(bank, torch.tensor([0, 1]), query, torch.tensor([0]), k=1) == 1.0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"bank": torch.full((3, 2), math.nan)}, "bank hold NaN"),
        ({"queries": torch.full((2, 2), math.inf)}, "queries hold NaN"),
        ({"bank_labels": torch.tensor([0, -1, 1])}, "leave unlabeled"),
        ({"k": 0}, "k=0"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"queries": torch.ones(0, 2), "query_labels": torch.ones(0).long()}, "at least one image"),
    ],
)
def test_bad_input_is_named(change: dict[str, object], sentence: str) -> None:
    arguments: dict[str, object] = {
        "bank": torch.ones(3, 2),
        "bank_labels": torch.tensor([0, 1, 1]),
        "queries": torch.ones(2, 2),
        "query_labels": torch.tensor([0, 1]),
    }
    with pytest.raises(NonegError, match=sentence):
        knn_accuracy(**(arguments | change))  # type: ignore[arg-type]
