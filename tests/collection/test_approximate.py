"""The index against exact search: it finds what it says, and is never read when damaged."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from noneg.collection.approximate import build_index, kept_index, load_index
from noneg.collection.neighbors import nearest, unit
from noneg.collection.search import search, search_approximately
from noneg.errors import NonegError


def vectors(count: int = 3_000, width: int = 16, groups: int = 40) -> np.ndarray:
    random = np.random.default_rng(0)
    centers = random.standard_normal((groups, width), dtype=np.float32)
    noise = random.standard_normal((count, width), dtype=np.float32)
    return unit(centers[random.integers(0, groups, count)] + 0.5 * noise)


@pytest.fixture(autouse=True)
def _faiss() -> None:
    pytest.importorskip("faiss", reason="faiss is not installed: noneg[index]")


def test_it_finds_the_share_that_it_says() -> None:
    bank = vectors()
    index = build_index(bank, least_recall=0.9)
    assert index.cells.nprobe < index.cells.nlist, "it read everything"
    assert index.recall >= 0.9
    queries = vectors(3_400)[3_000:]
    exact, found = nearest(queries, bank, 10), index.nearest(queries, 10)
    share = np.mean(
        [len(set(one) & set(two)) / 10 for one, two in zip(exact.index, found.index, strict=True)]
    )
    assert share == pytest.approx(index.recall, abs=0.06)
    np.testing.assert_allclose(
        found.cosine[:, 0], (queries * bank[found.index[:, 0]]).sum(axis=1), atol=1e-5
    )
    assert (np.diff(found.cosine, axis=1) <= 0).all()


def test_more_recall_reads_more_cells_until_all_is_found() -> None:
    bank = vectors()
    some, all_of_it = build_index(bank, least_recall=0.6), build_index(bank, least_recall=1.0)
    assert some.cells.nprobe < all_of_it.cells.nprobe
    assert all_of_it.recall == 1.0


def test_few_vectors_are_found_exactly() -> None:
    bank = vectors(7)
    np.testing.assert_array_equal(
        build_index(bank).nearest(bank, 99).index, nearest(bank, bank, 7).index
    )
    with pytest.raises(NonegError, match="at least two"):
        build_index(bank[:1])
    with pytest.raises(NonegError, match="at least 1"):
        build_index(bank).nearest(bank, 0)


def test_a_kept_index_is_used_for_the_same_vectors_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank, file = vectors(), tmp_path / "kept" / "index.faiss"
    built = kept_index(file, bank)
    expected = built.nearest(bank[:9], 5)
    other = kept_index(file, -bank)
    assert (other.nearest(-bank[:9], 1).index[:, 0] == np.arange(9)).all()
    kept_index(file, bank)
    monkeypatch.setattr("noneg.collection.approximate.build_index", None)
    again = kept_index(file, bank)
    np.testing.assert_array_equal(again.nearest(bank[:9], 5).index, expected.index)
    assert again.recall == built.recall
    assert {each.name for each in file.parent.iterdir()} == {"index.faiss", "index.faiss.json"}


def test_an_index_that_does_not_say_of_which_vectors_is_built_again(tmp_path: Path) -> None:
    """They were in a third file before."""
    bank, file = vectors(500), tmp_path / "index.faiss"
    kept_index(file, bank)
    about = tmp_path / "index.faiss.json"
    fields = json.loads(about.read_text())
    about.write_text(json.dumps({name: fields[name] for name in ("recall", "blake2b")}))
    assert len(kept_index(file, bank)) == 500
    assert json.loads(about.read_text())["of"] == fields["of"]


@pytest.mark.parametrize("damage", ["cut", "changed", "about", "missing"])
def test_damaged_files_are_refused_and_built_again(damage: str, tmp_path: Path) -> None:
    bank, file = vectors(500), tmp_path / "index.faiss"
    kept_index(file, bank)
    content = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        content[40] ^= 255
        file.write_bytes(content)
    elif damage == "about":
        (tmp_path / "index.faiss.json").write_text(json.dumps({"recall": "high"}))
    else:
        file.unlink()
    with pytest.raises(NonegError, match="build it again"):
        load_index(file)
    assert len(kept_index(file, bank)) == 500
    assert len(load_index(file)) == 500


def test_whitened_search_agrees_with_exact_search() -> None:
    random = np.random.default_rng(1)
    embeddings = vectors() * random.uniform(0.1, 9, 16).astype(np.float32)
    queries = embeddings[:50]
    exact = search(embeddings, queries, 5)
    found, recall = search_approximately(embeddings, queries, 5)
    assert recall >= 0.95
    assert (exact.index[:, 0] == found.index[:, 0]).all()
    assert (exact.index == found.index).mean() > 0.8


def test_without_faiss_it_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(NonegError, match=r"pip install 'noneg\[index\]', or leave --approximate"):
        build_index(vectors(10))
