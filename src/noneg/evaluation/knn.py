"""The nearest-neighbor probe: weighted votes of the labeled images that are most similar."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from noneg.errors import NonegError

SIMILARITIES_PER_BLOCK = 2**25
"""128 MB of float32: large enough for fast products, small compared with the features."""


def knn_accuracy(
    bank: Float[Tensor, "bank width"],
    bank_labels: Int[Tensor, " bank"],
    queries: Float[Tensor, "queries width"],
    query_labels: Int[Tensor, " queries"],
    *,
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    """Share of queries whose k nearest neighbors vote for the right class: see `knn_correct`.

    Returns:
        Accuracy in [0, 1].
    """
    correct = knn_correct(bank, bank_labels, queries, query_labels, k=k, temperature=temperature)
    return int(correct.sum()) / len(correct)


def knn_correct(
    bank: Float[Tensor, "bank width"],
    bank_labels: Int[Tensor, " bank"],
    queries: Float[Tensor, "queries width"],
    query_labels: Int[Tensor, " queries"],
    *,
    k: int = 20,
    temperature: float = 0.07,
) -> Bool[Tensor, " queries"]:
    """Which queries' k nearest neighbors vote for the right class.

    Each neighbor votes for its class with weight exp(cos / temperature), where cos is the cosine of
    the angle between the two feature vectors (Wu et al. 2018, arXiv 1805.01978, section 3.4).
    Nothing is trained, and features are used as they are: not centered, and only their directions
    matter. Scores whiten them first, see `noneg.evaluation.scores.whitened_knn_accuracy`.

    Ties: among equally near images the first ones in the bank are neighbors, and among classes with
    equal votes the lowest label wins. M queries take M * N * D multiplications on the device of the
    bank, and a fixed amount of memory besides the features.

    Args:
        bank: features [N, D] of the labeled images to search.
        bank_labels: their classes [N], 0 or more.
        queries: features [M, D] of the images to classify.
        query_labels: their classes [M]; a class that is not in the bank counts as an error.
        k: neighbors per query, 1 or more; if the bank is smaller, all of it.
        temperature: above 0; a smaller one gives nearer neighbors more weight.

    Returns:
        One truth value per query [M], on the device of the bank.

    Raises:
        NonegError: for empty, non-finite or mismatched features and labels, or k or temperature out
            of range.
    """
    _check(bank, bank_labels, queries, query_labels, k, temperature)
    k = min(k, len(bank))
    bank = normalize(bank.float(), dim=1)
    bank_labels = bank_labels.to(bank.device, torch.int64)
    query_labels = query_labels.to(bank.device, torch.int64)
    classes = int(bank_labels.max()) + 1
    correct: list[Bool[Tensor, " block"]] = []
    block = max(1, SIMILARITIES_PER_BLOCK // len(bank))
    for start in range(0, len(queries), block):
        rows = slice(start, start + block)
        similarity = normalize(queries[rows].to(bank), dim=1) @ bank.T
        neighbors = _nearest(similarity, k)
        # Minus 1, the largest cosine: the same shares of the votes, without overflow at small
        # temperatures.
        weight = ((similarity.gather(1, neighbors) - 1) / temperature).double().exp()
        votes = weight.new_zeros(len(similarity), classes)
        votes.scatter_add_(1, bank_labels[neighbors], weight)
        correct.append(votes.argmax(dim=1) == query_labels[rows])
    return torch.cat(correct)


def _nearest(similarity: Float[Tensor, "queries bank"], k: int) -> Int[Tensor, "queries k"]:
    """Indices of the k largest of each row; among equal ones the first."""
    bank = similarity.shape[1]
    if k == bank:
        return torch.arange(bank, device=similarity.device).expand_as(similarity)
    values, indices = similarity.topk(k + 1, dim=1)
    indices = indices[:, :k]
    # topk does not define which of several equal values it returns.
    tied = (values[:, k - 1] == values[:, k]).nonzero()[:, 0]
    # A few rows at a time: `_first_of_equals` takes more memory than the similarities.
    few = max(1, SIMILARITIES_PER_BLOCK // 8 // bank)
    for rows in torch.split(tied, few):
        indices[rows] = _first_of_equals(similarity[rows], values[rows, k - 1], k)
    return indices


def _first_of_equals(
    similarity: Float[Tensor, "rows bank"], boundary: Float[Tensor, " rows"], k: int
) -> Int[Tensor, "rows k"]:
    above: Bool[Tensor, "rows bank"] = similarity > boundary[:, None]
    equal: Bool[Tensor, "rows bank"] = similarity == boundary[:, None]
    still_free = k - above.sum(dim=1, keepdim=True)
    chosen = above | (equal & (equal.cumsum(dim=1, dtype=torch.int32) <= still_free))
    return chosen.nonzero()[:, 1].reshape(len(similarity), k)


def _check(
    bank: Float[Tensor, "bank width"],
    bank_labels: Int[Tensor, " bank"],
    queries: Float[Tensor, "queries width"],
    query_labels: Int[Tensor, " queries"],
    k: int,
    temperature: float,
) -> None:
    for name, features in (("bank", bank), ("queries", queries)):
        if len(features) == 0:
            raise NonegError(
                f"kNN needs at least one image in the {name}, but got none; add images."
            )
        if not bool(torch.isfinite(features).all()):
            raise NonegError(
                f"The features of the {name} hold NaN or infinite values, so distances mean "
                "nothing; find out where the training diverged."
            )
    if len(bank_labels) != len(bank) or len(query_labels) != len(queries):
        raise NonegError(
            f"kNN got {len(bank)} and {len(queries)} images, but {len(bank_labels)} and "
            f"{len(query_labels)} labels; give one label per image."
        )
    if bank_labels.min() < 0:
        raise NonegError(
            f"kNN needs a class of 0 or more for each image of the bank, but one is "
            f"{int(bank_labels.min())}; leave unlabeled images out."
        )
    if k < 1 or not temperature > 0:
        raise NonegError(
            f"kNN needs k of 1 or more and a temperature above 0, but got k={k} and "
            f"temperature={temperature}; the usual ones are 20 and 0.07."
        )
