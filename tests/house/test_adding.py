"""What CONTRIBUTING.md says must be touched to add something is enough."""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import noneg
from noneg.diagnostics import METERS, measure

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package, to add files to."""
    copied = tmp_path_factory.mktemp("copy") / "noneg"
    shutil.copytree(
        Path(noneg.__file__).parent, copied, ignore=shutil.ignore_patterns("__pycache__")
    )
    return copied


def run(copy: Path, program: str) -> str:
    """What a Python program prints that imports the copy."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, "PYTHONPATH": str(copy.parent), "OMP_NUM_THREADS": "1"},
        cwd=copy.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_method_is_one_file_and_its_loss_another(copy: Path) -> None:
    page = (REPOSITORY / "docs" / "your-method.md").read_text(encoding="utf-8")
    shown = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert shown is not None
    (copy / "losses" / "length.py").write_text(
        '"""Length 1."""\n\n\ndef length(z):\n    return (z.norm(dim=2) - 1).square().mean()\n'
    )
    method = shown[1].replace("(e.z.norm(dim=2) - 1).square().mean()", "length(e.z)")
    method = method.replace(
        "import torch\n", "import torch\nfrom noneg.losses.length import length\n"
    )
    assert "length(e.z)" in method
    (copy / "methods" / "toy.py").write_text(method)
    printed = run(
        copy,
        "import numpy, noneg\n"
        "from noneg.cli import main\n"
        "main(['list', 'methods'])\n"
        "images = numpy.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), numpy.uint8)\n"
        "run = noneg.train(images, method='toy', epochs=1, batch_size=8, report=False, out='run')\n"
        "print((run.directory / 'metrics.csv').read_text())\n",
    )
    assert re.search(r"^toy +Views of an image should agree", printed, re.MULTILINE)
    assert "agreement,length" in printed


def test_a_study_is_one_file(copy: Path) -> None:
    study = (copy / "studies" / "em.py").read_text(encoding="utf-8")
    (copy / "studies" / "toy.py").write_text(study.replace('"em"', '"toy"'))
    listed = run(copy, "from noneg.cli import main; main(['study', 'list'])")
    assert [line.split()[0] for line in listed.splitlines()].count("toy") == 1


def test_a_meter_is_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METERS, "toy", dataclasses.replace(METERS["norm"], title="Toy"))
    measured = measure(torch.randn(2, 20, 4, generator=torch.Generator().manual_seed(0)))
    assert measured["toy"] == measured["norm"]
