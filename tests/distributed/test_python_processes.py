"""`noneg.train` in a Python program with two processes: both continue with the next line."""

from pathlib import Path

import numpy as np

import noneg
from conftest import start_python

PROGRAM = """
import os, pathlib, sys
import noneg
from noneg.images.reading import local_processes

place = pathlib.Path(sys.argv[1])
settings = dict(
    method="simsiam", options={"projector": (16, 8), "predictor_hidden": 4}, epochs=1,
    batch_size=8, size=16, devices=2, accelerator="cpu", strategy="ddp", report=False,
    precision="32-true",
)
for name in ("first", "second"):
    run = noneg.train(place / "images.npz", out=str(place / name), **settings)
    rank = os.environ.get("LOCAL_RANK", "0")
    norm = sum(float(value.float().norm()) for value in run.encoder.module.state_dict().values())
    line = f"{run.directory.name} {run.verdict.state} {len(run.scores)} {norm:.6f}"
    # The threads that read images share the machine's cores.
    assert local_processes() == 2
    (place / f"{name}-{rank}.txt").write_text(line)
"""


def test_every_process_gets_its_run(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    np.savez(
        tmp_path / "images.npz",
        images=generator.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8),
        labels=generator.integers(0, 2, 40),
    )
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    process = start_python([str(program), str(tmp_path)])
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    for name in ("first", "second"):
        lines = [(tmp_path / f"{name}-{rank}.txt").read_text() for rank in (0, 1)]
        assert lines[0] == lines[1]
        assert lines[0].startswith(name)
        assert lines[0].split()[-2] == "4"
        # One process wrote the files, and printed that once.
        assert output.count(f"encoder  {tmp_path / name / 'encoder'}") == 1
        assert noneg.load(tmp_path / name).info.features == 256


def test_a_directory_in_use_ends_both_processes_with_one_sentence(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.zeros((40, 16, 16, 3), dtype=np.uint8))
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.yaml").write_text("method: byol\n")
    arguments = ["train", str(tmp_path / "images.npy"), f"--out={out}", "--batch-size=8"]
    process = start_python(["-m", "noneg", *arguments, "--devices=2", "--accelerator=cpu"])
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 2, output
    assert output.count("holds a run already") == 1
    assert "Traceback" not in output
