"""A study's batch measure is written at the first step, every few steps, and at the last."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from noneg.experiments.recorder import BatchRecorder
from noneg.methods.base import Embeddings, Method
from noneg.methods.siamese import Options, Siamese
from noneg.records.directory import RunDirectory

STEPS = 8


def power(method: Method, e: Embeddings) -> Mapping[str, float | Tensor]:
    return {"power": e.z.square().mean(), "width": method.width}


def train(recorder: BatchRecorder, first: int = 0, last: int = STEPS) -> None:
    """The calls of a training loop, from a checkpoint after `first` steps."""
    method = Siamese(nn.Identity(), 2, Options())
    method.width = 2.0
    recorder.begin(first, STEPS)
    for step in range(first + 1, last + 1):
        z = torch.full((2, 3, 2), float(step), requires_grad=True)
        with torch.no_grad():
            recorder.observe(step, (step - 1) // 4, method, Embeddings(h=z, z=z))


@pytest.mark.parametrize(
    ("every", "steps"), [(1, [1, 2, 3, 4, 5, 6, 7, 8]), (3, [1, 3, 6, 8]), (4, [1, 4, 8])]
)
def test_rows_are_regular_and_include_both_ends(
    every: int, steps: list[int], tmp_path: Path
) -> None:
    table = RunDirectory(tmp_path).study_meter
    recorder = BatchRecorder(table, power, every)
    train(recorder)
    rows = [{"step": str(s), "power": f"{s * s}", "width": "2"} for s in steps]
    assert table.read() == rows


def test_a_resumed_run_has_the_rows_of_one_that_never_stopped(tmp_path: Path) -> None:
    whole, resumed = (RunDirectory(tmp_path / name).study_meter for name in ("whole", "resumed"))
    for table in (whole, resumed):
        table.path.parent.mkdir()
    recorder = BatchRecorder(whole, power, 2)
    train(recorder)
    # Killed in step 7, after the checkpoint of step 3.
    train(BatchRecorder(resumed, power, 2), last=6)
    recorder = BatchRecorder(RunDirectory(resumed.path.parent).study_meter, power, 2)
    train(recorder, first=3)
    assert resumed.read() == whole.read()
