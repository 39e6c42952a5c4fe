"""What decides something in the speedrun: the held-out part, the commit, rows, cores, budgets."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from budget import steps_that_fit
from limit import PEAK, rows_of
from noneg.images import load_images
from speedrun import is_there, over_budget, place, summarize
from speedrun_data import find_part, held_out, load_dev, refuse_unless

HEAD = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("counts", "expected"),
    [([70_000, 30_000], [3_500, 1_500]), ([2_000, 1_000, 10], [200, 100, 1])],
)
def test_held_out_images_are_in_proportion(counts: list[int], expected: list[int]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    marked = held_out(labels)
    assert marked.sum() == sum(expected)
    assert np.abs(np.bincount(labels[marked], minlength=len(counts)) - expected).max() <= 1
    assert (held_out(labels) == marked).all()
    # Neither the first of their class nor evenly spaced in it.
    assert len(np.unique(np.diff(np.flatnonzero(marked[: counts[0]])))) > 10


def test_no_held_out_image_is_trained_on() -> None:
    parts = load_dev("shapes", None)
    train, scored = (np.asarray(part.pixels) for part in (parts.train, parts.scored))
    assert (len(train), len(scored)) == (3_600, 400)
    assert not {image.tobytes() for image in train} & {image.tobytes() for image in scored}
    assert parts.train.labels is not None
    assert parts.scored.labels is not None
    whole = load_images(find_part("shapes", None, "train"), channels=3, size=train.shape[-1])
    label_of = dict(zip((image.tobytes() for image in whole.pixels), whole.labels, strict=True))
    for images, labels in ((train, parts.train.labels), (scored, parts.scored.labels)):
        assert [label_of[image.tobytes()] for image in images] == labels.tolist()


@pytest.mark.parametrize(
    ("named", "is_clean", "reason"),
    [
        ("HEAD", True, "digits"),
        (HEAD[:6], True, "digits"),
        ("f" * 40, True, "checkout is at"),
        (HEAD[1:9], True, "checkout is at"),
        (HEAD, False, "changes"),
    ],
)
def test_the_test_set_stays_shut(named: str, is_clean: bool, reason: str) -> None:
    with pytest.raises(SystemExit, match=reason):
        refuse_unless(named, HEAD, is_clean)


@pytest.mark.parametrize("named", [HEAD, HEAD[:7]])
def test_the_test_set_opens_for_the_commit_that_was_named(named: str) -> None:
    refuse_unless(named, HEAD, is_clean=True)


def a_row(**changed: str) -> dict[str, str]:
    row = {
        "dataset": "shapes",
        "split": "dev",
        "entry": "noneg",
        "settings": '{"a": 1}',
        "budget_s": "120",
        "cores": "1",
        "seed": "0",
        "commit": "abc",
        "status": "done",
        "knn": "0.5",
        "knn_raw": "",
        "linear": "0.6",
        "cpu_seconds": "119.0",
    }
    return row | changed


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({}, True),
        ({"commit": "def"}, True),
        ({"status": "diverged: the loss is nan"}, True),
        ({"status": "over budget: 140 CPU seconds"}, True),
        ({"status": "failed: no memory"}, False),
        ({"settings": '{"a": 2}'}, False),
        ({"seed": "1"}, False),
        ({"budget_s": "600"}, False),
        ({"split": "test"}, False),
    ],
)
def test_what_was_tried_is_not_tried_again(other: dict[str, str], expected: bool) -> None:
    assert is_there(a_row(), [a_row(seed="7"), a_row(**other)]) is expected


def test_test_scores_are_of_a_commit() -> None:
    assert is_there(a_row(split="test"), [a_row(split="test")])
    assert not is_there(a_row(split="test"), [a_row(split="test", commit="def")])


def test_two_sides_run_together_and_swap_cores() -> None:
    assert place(3, 2, 0) == [[(0, 0), (1, 1)], [(2, 0)]]
    assert place(3, 2, 1) == [[(0, 1), (1, 0)], [(2, 1)]]
    assert place(2, 1, 5) == [[(0, 0)], [(1, 0)]]


def test_the_table_has_mean_spread_and_n() -> None:
    rows = [
        a_row(knn="0.50"),
        a_row(knn="0.54", seed="1"),
        a_row(knn="", linear="", cpu_seconds="", seed="2", status="failed: no memory"),
        a_row(knn="0.90", settings='{"a": 2}'),
    ]
    lines = summarize(rows).splitlines()
    assert lines[0] == "### shapes, held-out images"
    # The standard deviation of 50 and 54, with n - 1, is 2.83.
    assert lines[4] == (
        "| noneg | 120 | 1 | 2 (+1 not done) | 52.0 ± 2.8 |  | 60.0 ± 0.0 | 119 | abc |"
    )
    assert lines[5] == "| noneg | 120 | 1 | 1 | 90.0 |  | 60.0 | 119 | abc |"


@pytest.mark.parametrize(
    ("seconds", "expected"), [(105.0, "done"), (106.0, "over budget"), (None, "done")]
)
def test_a_run_that_took_too_long_does_not_count(seconds: float | None, expected: str) -> None:
    row: dict[str, Any] = {"cpu_seconds": seconds, "budget_s": "100", "cores": 1}
    assert over_budget(row) == (expected == "over budget")
    assert not over_budget(row | {"cores": 2})
    assert not over_budget(row | {"budget_s": "0"})


def test_steps_that_fit_leave_room_for_everything_else() -> None:
    # 3 s before the first step, the first two steps slow, then 0.5 s each, and 1 s at the end.
    after = [104.0, 105.0, 105.5, 106.0, 106.5]
    # 7.5 s for five steps of 0.5 s: 5 s are overhead, of which the slow steps are 1 s.
    assert steps_that_fit(25.0, 100.0, after, 107.5) == 40
    assert steps_that_fit(1.0, 100.0, after, 107.5) == 1


def test_idx_files_are_read(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    labels = (np.arange(40) % 4).astype(np.uint8)
    for stem, array in (("images-idx3", images), ("labels-idx1", labels)):
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        for part in ("train", "t10k"):
            path = tmp_path / f"{part}-{stem}-ubyte.gz"
            path.write_bytes(gzip.compress(header + array.tobytes()))
    for split in ("train", "test"):
        source = find_part("fashion_mnist", tmp_path, split)
        assert (source.natural_channels(), source.natural_size()) == (1, 28)
        assert source.labels is not None
        assert source.labels.tolist() == labels.tolist()
        assert (source.read(3, 1, 28)[0] == images[3]).all()


def test_a_share_of_the_matrix_product_counts_operations() -> None:
    # 100 images/s of 2 GFLOP each are half of 400 GFLOP/s.
    rows = rows_of({"noneg": 100.0, PEAK: 4e11}, per_image=2e9)
    assert rows == [["noneg", "100.0", "200.0", "0.5000"], [PEAK, "", "400.0", "1.0000"]]
