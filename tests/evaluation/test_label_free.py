"""Label-free meters of known networks on known images."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from noneg.cli import main
from noneg.diagnostics import METERS
from noneg.evaluation.label_free import (
    embed_with_backbone,
    format_meters,
    measure_embeddings,
    meters_as_dict,
)
from noneg.images import Images
from noneg.views import POLICIES, View


def noise(count: int) -> Images:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, 16, 16), dtype=np.uint8)
    names = tuple(str(number) for number in range(count))
    return Images(pixels, names, None, None, (), "noise", None)


class Means(nn.Module):
    """The mean color: three directions, changed a little by crops and not at all by flips."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * images.mean(dim=(2, 3))


class Constant(Means):
    def forward(self, images: Tensor) -> Tensor:
        return self.scale.expand(len(images), 4)


FLIPS = (View(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), jitter=0.0, grayscale=0.0),)


def measured(module: nn.Module, policy: tuple[View, ...] = FLIPS) -> dict[str, float]:
    settings = {"size": 16, "mean": (0.5,) * 3, "std": (0.1,) * 3}
    return measure_embeddings(module, embed_with_backbone(module), noise(300), policy, **settings)[
        "h"
    ]


def test_embeddings_that_views_do_not_change_are_aligned_and_retrieved() -> None:
    meters = measured(Means())
    assert list(meters) == list(METERS)
    assert meters["alignment"] == pytest.approx(0, abs=1e-6)
    assert meters["view_retrieval"] == pytest.approx(1)
    # The means of noise have three independent directions.
    assert 2.8 < meters["effective_rank"] <= 3
    assert abs(meters["mean_cosine"]) < 0.05


def test_different_views_lower_alignment() -> None:
    meters = measured(Means(), POLICIES["gentle"](16))
    assert meters["alignment"] > 0.1
    assert meters["view_retrieval"] < 0.9


def test_a_constant_network_is_collapsed() -> None:
    meters = measured(Constant())
    assert (meters["std"], meters["effective_rank"]) == (0, 1)
    assert meters["mean_cosine"] == pytest.approx(1)
    assert meters["view_retrieval"] == pytest.approx(1 / 300)


def test_the_network_is_measured_in_evaluation_mode_and_its_mode_is_restored() -> None:
    module = nn.Sequential(Means(), nn.Dropout(0.5))
    module[1].eval()
    once, again = measured(module), measured(module)
    assert once == again
    assert module[0].training
    assert not module[1].training


def test_undefined_meters_are_null_in_json_and_a_dash_in_the_table() -> None:
    meters = {"h": measured(Constant())}
    plain = json.loads(json.dumps(meters_as_dict(meters, meters, 300), allow_nan=False))
    assert plain["trained"]["h"]["two_nn_dimension"] is None
    lines = format_meters(meters, meters).splitlines()
    assert len(lines) == len(METERS) + 1
    line = next(line for line in lines if line.startswith("TwoNN"))
    assert line.split()[-2:] == ["-", "-"]


def test_a_run_is_evaluated_without_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, pixels in enumerate(noise(24).pixels):
        Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / f"{number}.png")
    run = tmp_path / "run"
    settings = ["--batch-size=8", "--epochs=1", "--size=16", "--no-report", "--method=byol"]
    settings += ["--options.projector=[16,8]", "--options.predictor_hidden=8"]
    assert main(["train", str(folder), f"--out={run}", *settings]) == 0
    written = json.loads((run / "meters.json").read_text())
    assert written["trained"].keys() == written["untrained"].keys() == {"h", "z"}
    assert written["trained"]["h"] != written["untrained"]["h"]
    capsys.readouterr()
    out = tmp_path / "out.json"
    assert main(["evaluate", str(run), str(folder), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "Effective rank" in printed
    assert "kNN" not in printed
    meters = json.loads(out.read_text())["meters"]
    # The same images, views and weights as at the end of the run.
    for embedding, values in written["trained"].items():
        for name, value in values.items():
            again = meters["trained"][embedding][name]
            assert again == (value if value is None else pytest.approx(value, rel=1e-3)), name
    # An encoder without its run has no projector.
    assert main(["evaluate", str(run / "encoder"), str(folder), "--out", str(out)]) == 0
    assert json.loads(out.read_text())["meters"]["trained"].keys() == {"h"}
    assert main(["evaluate", str(run), str(folder), "--bank", str(folder)]) == 2
    assert "none to test on" in capsys.readouterr().err
