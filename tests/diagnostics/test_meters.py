"""All meters at once equal the meters one by one, and no input makes them fail."""

import math
from pathlib import Path

import pytest
import torch

import noneg.diagnostics as diagnostics
from noneg.diagnostics import METERS, QUICK_METERS, measure, meters, quick_measure
from noneg.diagnostics.spectrum import participation_ratio_of
from noneg.diagnostics.table import meter_table

KEYS = [
    "std",
    "effective_rank",
    "rankme",
    "participation_ratio",
    "stable_rank",
    "top_share",
    "nesum",
    "alpha_req",
    "explained_auc",
    "alignment",
    "uniformity",
    "mean_cosine",
    "self_clustering",
    "view_retrieval",
    "lidar",
    "two_nn_dimension",
    "norm",
]
OF_ALL_VIEWS = {"alignment", "view_retrieval", "lidar"}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def one_by_one(views: torch.Tensor) -> dict[str, float]:
    """Each meter by its own function, of embeddings, or of one of their spectra."""
    functions = {"std": diagnostics.normalized_std, "norm": diagnostics.mean_norm}
    numbers = {}
    for key in KEYS:
        meter = functions.get(key, getattr(diagnostics, key, None))
        assert meter is not None, key
        numbers[key] = meter(views if key in OF_ALL_VIEWS else views[0])
    # `measure` has the eigenvalues; the function by itself does not need them.
    centered = diagnostics.covariance_eigenvalues(views[0])
    numbers["participation_ratio"] = participation_ratio_of(centered)
    return numbers


@pytest.mark.parametrize(("images", "width"), [(60, 32), (40, 70)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_number_is_that_of_its_meter(images: int, width: int, dtype: torch.dtype) -> None:
    views = (random(images, width) + 0.4 * random(3, images, width, seed=1) + 0.5).to(dtype)
    numbers = measure(views)
    assert list(numbers) == KEYS == list(METERS)
    assert numbers == one_by_one(views)
    for key, number in numbers.items():
        assert type(number) is float
        low, high = METERS[key].low, METERS[key].high
        assert low is None or number >= low
        assert high is None or number <= high
    quick = quick_measure(views)
    assert list(quick) == ["std", "norm", "mean_cosine", "alignment", "participation_ratio"]
    assert quick.keys() == QUICK_METERS.keys()
    ratio = diagnostics.participation_ratio(views[0])
    assert quick == {key: numbers[key] for key in quick} | {"participation_ratio": ratio}
    assert ratio == pytest.approx(numbers["participation_ratio"], rel=1e-6)


def test_each_spectrum_is_decomposed_once_and_only_if_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decomposed = []

    def count(z: torch.Tensor, **settings: object) -> torch.Tensor:
        decomposed.append(settings.get("centered", True))
        return diagnostics.covariance_eigenvalues(z, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(meters, "covariance_eigenvalues", count)
    quick_measure(random(2, 30, 12))
    assert decomposed == []
    measure(random(2, 30, 12))
    assert sorted(decomposed) == [False, True]


def test_other_views_enter_only_where_they_should() -> None:
    views = random(3, 40, 24)
    numbers = measure(views)
    others = measure(torch.cat([views[:1], random(2, 40, 24, seed=1)]))
    single = measure(views[:1])
    for key in KEYS:
        if key in OF_ALL_VIEWS:
            assert numbers[key] != others[key] or key == "view_retrieval"
            assert math.isnan(single[key])
        else:
            assert numbers[key] == others[key] == single[key]
    assert math.isnan(quick_measure(views[:1])["alignment"])


@pytest.mark.parametrize(
    "shape", [(2, 64, 16), (2, 2, 1), (2, 2, 5), (1, 1, 1), (3, 1, 4), (2, 9, 1)]
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["zero", "equal", "tiny", "line", "huge", "random"])
def test_nothing_fails(shape: tuple[int, int, int], dtype: torch.dtype, kind: str) -> None:
    views = {
        "zero": torch.zeros(shape),
        "equal": random(shape[2]).expand(shape),
        "tiny": 1e-30 * random(*shape),
        "line": random(*shape[:2], 1) * random(shape[2], seed=1),
        "huge": 1e18 * random(*shape),
        "random": random(*shape),
    }[kind].to(dtype)
    for numbers in (measure(views), quick_measure(views)):
        for number in numbers.values():
            assert math.isnan(number) or math.isfinite(number)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_collapse_reads_as_documented(dtype: torch.dtype) -> None:
    numbers = measure(random(64).to(dtype).expand(2, 128, 64))
    for key in ("effective_rank", "participation_ratio", "stable_rank", "top_share", "nesum"):
        assert numbers[key] == pytest.approx(1)
    for key in ("rankme", "explained_auc", "lidar", "mean_cosine", "self_clustering"):
        assert numbers[key] == pytest.approx(1, abs=1e-3)
    for key in ("std", "alignment", "uniformity"):
        assert numbers[key] == pytest.approx(0, abs=1e-7)
    assert numbers["view_retrieval"] == pytest.approx(1 / 128)
    assert math.isnan(numbers["alpha_req"])
    assert math.isnan(numbers["two_nn_dimension"])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("view", [0, 1])
def test_embeddings_that_are_not_finite_give_nan_throughout(bad: float, view: int) -> None:
    views = random(2, 30, 12)
    views[view, 7, 3] = bad
    for numbers in (measure(views), quick_measure(views)):
        assert all(math.isnan(number) for number in numbers.values())


def test_resolution_reaches_the_meters_that_need_it() -> None:
    near = random(64) + 3 + 1e-3 * random(2, 128, 64, seed=1)
    coarse = near.bfloat16()
    truth = measure(coarse)
    told = measure(coarse.float(), resolution=torch.finfo(torch.bfloat16).eps)
    assert told == pytest.approx(truth, nan_ok=True)
    assert quick_measure(coarse.float(), resolution=2.0**-7) == pytest.approx(quick_measure(coarse))
    untold = measure(coarse.float())
    assert truth["effective_rank"] == truth["lidar"] == 1
    assert untold["effective_rank"] > 10
    # Equal except for the last bit: no neighbors, and nothing to retrieve an image by.
    generator = torch.Generator().manual_seed(0)
    last_bits = 1 + torch.randint(-1, 2, (40, 64), generator=generator) * 2.0**-23
    numbers = measure((random(64) * last_bits).expand(2, 40, 64))
    assert numbers["view_retrieval"] == pytest.approx(1 / 40)
    assert math.isnan(numbers["two_nn_dimension"])


def test_embeddings_stay_as_they_are() -> None:
    views = random(2, 30, 12).requires_grad_()
    before = views.detach().clone()
    measure(views)
    quick_measure(views)
    assert torch.equal(views.detach(), before)
    double = before.double()
    measure(double)
    assert torch.equal(double, before.double())


def test_every_meter_says_what_it_cannot_see() -> None:
    for meter in METERS.values():
        assert meter.title
        assert meter.blind.endswith(".")
        assert meter.low is None or meter.high is None or meter.low < meter.high


def test_the_docs_have_the_table_of_meters() -> None:
    """`python -m noneg.diagnostics.table` prints it."""
    docs = Path(__file__).parents[2] / "docs" / "diagnostics.md"
    table = meter_table()
    assert f"\n\n{table}\n\n" in docs.read_text(encoding="utf-8")
    assert table.count("\n") == len(METERS) + 1
