"""The kinds of failure that only one method has: what shows them, and what is said."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from test_contract import build

import noneg
from noneg.images.shapes import draw_shapes
from noneg.losses import assignment_entropies
from noneg.methods import find_method, list_methods
from noneg.methods.base import Embeddings
from noneg.records.table import StepTable


def test_entropies_of_assignments() -> None:
    alike, single = torch.full((2, 6, 3), 1 / 3), torch.zeros(2, 6, 3)
    single[:, :, 1] = 1
    own = torch.eye(3).repeat(2, 2, 1)
    assert assignment_entropies(alike) == pytest.approx((1, 1))
    assert assignment_entropies(single) == (0, 0)
    assert assignment_entropies(own) == pytest.approx((0, 1))
    # Half of the images in one cluster, the others in another: log 2 of log 3.
    halves = torch.eye(3)[torch.tensor([0, 0, 2, 2])].repeat(1, 1, 1)
    assert assignment_entropies(halves) == pytest.approx((0, math.log(2) / math.log(3)))


def told(name: str, e: Embeddings) -> str | None:
    """What is said after a step with these embeddings."""
    method, definition = build(name, projector=(24, 8)), find_method(name)
    row = {key: float(value) for key, value in method.objective(e).terms.items()}
    row |= method.meters(e)
    assert definition.failure is not None
    failure = definition.failure(row, method.options)
    return None if failure is None else failure.sentence


def embeddings(z: torch.Tensor, scores: torch.Tensor) -> Embeddings:
    return Embeddings(h=z, z=z, p=scores, t=scores)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_dino_uniform_and_one_prototype() -> None:
    z = random(2, 12, 8)
    sharp = 1.0 * torch.eye(20)[torch.arange(12)].expand(2, 12, 20)
    assert told("dino", embeddings(z, sharp)) is None
    assert "all prototypes alike" in str(told("dino", embeddings(z, 1e-3 * random(2, 12, 20))))
    # The same for all images, and more than the center, which has moved by a tenth of it.
    single = torch.eye(20)[torch.zeros(12, dtype=torch.int64)].expand(2, 12, 20)
    assert "the same prototype" in str(told("dino", embeddings(z, single)))


def test_swav_says_nothing_about_images() -> None:
    z = random(2, 12, 8)
    assert told("swav", embeddings(z, random(2, 12, 20).clamp(-1, 1))) is None
    assert "all clusters alike" in str(told("swav", embeddings(z, 1e-3 * random(2, 12, 20))))


def test_tico_on_one_line() -> None:
    """The running matrix begins with zeros and takes a tenth of each batch, so it takes a while."""
    method, definition = build("tico", projector=(24, 8)), find_method("tico")
    assert definition.failure is not None
    spread, line = random(2, 12, 8), random(1, 1, 8) * random(2, 12, 1, seed=1)
    for z, expected in ((spread, False), (line, True)):
        for _ in range(60):
            terms = method.objective(Embeddings(h=z, z=z, t=z)).terms
        failure = definition.failure({"covariance": float(terms["covariance"])}, method.options)
        assert (failure is not None) == expected
    assert failure is not None
    assert "8 is the most" in failure.sentence


@pytest.mark.parametrize("name", list_methods())
def test_a_run_that_began_before_its_method_had_meters_goes_on(name: str) -> None:
    definition = find_method(name)
    if definition.failure is not None:
        row = {"covariance": 0.0}
        assert definition.failure(row, definition.recipe("small").options) is None


def test_columns_that_an_older_table_lacks_are_left_out(tmp_path: Path) -> None:
    table = StepTable(tmp_path / "metrics.csv")
    table.append({"step": 1, "loss": 0.5})
    assert table.append({"step": 2, "loss": 0.25, "target_entropy": 0.9}) == {
        "step": "2",
        "loss": "0.25",
    }
    assert [row["loss"] for row in table.read()] == ["0.5", "0.25"]


def test_a_run_of_dino_without_centering_is_told_why_it_fails(tmp_path: Path) -> None:
    pixels = np.ascontiguousarray(draw_shapes(128, seed=0, size=16).pixels.transpose(0, 2, 3, 1))
    noneg.train(
        pixels,
        out=str(tmp_path / "run"),
        method="dino",
        options={"center_momentum": 1.0},
        backbone="small_resnet",
        size=16,
        batch_size=32,
        epochs=24,
        views="gentle",
        optimizer="adamw",
        learning_rate=0.01,
        evaluate=False,
        report=False,
    )
    verdict = json.loads((tmp_path / "run" / "verdict.json").read_text())
    assert verdict["state"] == "projector only"
    assert "The teacher gives nearly all images the same prototype" in verdict["sentence"]
    assert "--options.center-momentum 0.9" in verdict["causes"][0]
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["prototypes_entropy"]) > 0.3
    assert float(rows[-1]["prototypes_entropy"]) < 0.25
