"""A method from another package, by its dotted path."""

from pathlib import Path

import numpy as np
import pytest

import noneg
from noneg.errors import NonegError
from noneg.methods import find_method

OWN = '''
"""Agreement that is pulled to unit length."""
from dataclasses import dataclass

import torch

from noneg.methods.base import Embeddings, Method, Loss
from noneg.methods.recipe import Recipe


@dataclass(frozen=True)
class Options:
    """How strongly lengths are pulled."""

    length: float = 1.0


RECIPES = {"paper": Recipe(options=Options()), "small": Recipe(options=Options(length=0.5))}


class Own(Method):
    def __init__(self, backbone, width, options):
        super().__init__(backbone)
        self.options = options

    def embed(self, views):
        h = torch.stack([self.backbone(view) for view in views])
        return Embeddings(h=h, z=h)

    def objective(self, e):
        apart = (e.z[0] - e.z[1]).square().mean()
        length = self.options.length * (e.z.norm(dim=2) - 1).square().mean()
        return Loss(apart + length, {"apart": apart, "length": length})
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "somebody"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "own.py").write_text(OWN)
    (folder / "empty.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    return "somebody"


def test_it_trains_with_its_own_options(package: str, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    run = noneg.train(
        images,
        method=f"{package}.own",
        options={"length": 2.0},
        epochs=1,
        batch_size=8,
        out=str(tmp_path / "run"),
    )
    assert run.config.options.length == 2.0
    header = (run.directory / "metrics.csv").read_text().split("\n")[0]
    assert "apart,length" in header


def test_a_module_that_is_no_method_is_named(package: str) -> None:
    with pytest.raises(NonegError, match=r"somebody\.empty is not a method: it must hold"):
        find_method(f"{package}.empty")
    with pytest.raises(NonegError, match=r"no method 'somebody\.missing'"):
        find_method(f"{package}.missing")
