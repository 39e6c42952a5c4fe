"""Do two checkouts train the same weights? Every built-in method, compared bit by bit.

BEFORE and AFTER are the directories of two checkouts. Both train every method of BEFORE for two
epochs on one CPU thread, in float32, each run in a process of its own. They also train BYOL in
chunks, on two processes, and with a `kill -9` after the first checkpoint and a resume. The two
encoders of each run are compared. All runs must be identical; only the runs on two processes may
differ, by rounding.

    python benchmarks/same_weights.py BEFORE AFTER            about half an hour on an idle core
    python benchmarks/same_weights.py BEFORE AFTER --quick    about three minutes: 256 images, and
                                                              three of the methods
"""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

RESULTS = Path("benchmarks/results/same_weights.csv")
QUICK_METHODS = ("byol", "directpred", "vicreg")
COMMON = (
    *("--epochs", "2", "--precision", "32-true", "--accelerator", "cpu"),
    *("--report", "false", "--evaluate", "false"),
)
# Of the largest weight; only for two processes, whose sums may be in another order.
ROUNDING = 1e-5
DRAW = """
import sys, numpy
from noneg.images.shapes import draw_shapes
shapes = draw_shapes(256, seed=0, size=32)
numpy.savez(sys.argv[1], images=shapes.pixels.transpose(0, 2, 3, 1), labels=shapes.labels)
"""


class RunFailedError(Exception):
    """A run did not give an encoder."""


@dataclass(frozen=True)
class Run:
    """What both checkouts train.

    Args:
        name: of the row.
        arguments: of `noneg train`, besides the common ones.
        is_killed: after its first checkpoint, and then resumed.
        tolerance: the largest difference that passes, as a share of the largest weight.
    """

    name: str
    arguments: tuple[str, ...]
    is_killed: bool = False
    tolerance: float = 0.0


def list_runs(methods: list[str], checkpoint_every: int) -> list[Run]:
    byol = ("--method", "byol")
    return [
        *(Run(name, ("--method", name)) for name in methods),
        Run("byol, chunks of 32", (*byol, "--chunk-size", "32")),
        Run(
            "byol, two processes",
            (*byol, "--devices", "2", "--strategy", "ddp"),
            tolerance=ROUNDING,
        ),
        Run(
            "byol, killed and resumed",
            (*byol, "--checkpoint-every", str(checkpoint_every)),
            is_killed=True,
        ),
    ]


@dataclass(frozen=True)
class Checkout:
    """A directory with a version of the package, which is run in processes of its own."""

    path: Path

    def commit(self) -> str:
        """Its short hash, with "-dirty" if files differ from it."""
        command = ["git", "-C", str(self.path), "describe"]
        options = ["--always", "--exclude=*", "--abbrev=12", "--dirty"]
        told = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        if told.returncode:
            raise SystemExit(f"{self.path} is not a checkout: {told.stderr.strip()}")
        return told.stdout.strip()

    def start(self, arguments: list[str], folder: Path) -> subprocess.Popen[str]:
        """Python with this checkout's package, in `folder`, where there is no other package."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.path / "src"),
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, arguments: list[str], folder: Path) -> str:
        """What such a process prints.

        Raises:
            RunFailedError: it exits with an error.
        """
        process = self.start(arguments, folder)
        output, _ = process.communicate()
        if process.returncode:
            raise RunFailedError("\n".join(output.splitlines()[-5:]))
        return output

    def check_import(self, folder: Path) -> None:
        """Exit if another copy of the package would be imported."""
        where = self.run(["-c", "import noneg; print(noneg.__file__)"], folder).split()[-1]
        if not Path(where).is_relative_to(self.path):
            raise SystemExit(f"{self.path} is not a checkout: noneg is imported from {where}")

    def train(self, run: Run, data: str, folder: Path) -> dict[str, np.ndarray]:
        """The tensors of the trained encoder."""
        out = folder / "run"
        train = ["-m", "noneg", "train"]
        arguments = [*train, data, *COMMON, *run.arguments, "--out", str(out)]
        if run.is_killed:
            self._train_until_checkpoint(arguments, folder, out / "checkpoints" / "last.ckpt")
            arguments = [*train, "--resume", str(out)]
        self.run(arguments, folder)
        return load_file(out / "encoder" / "encoder.safetensors")

    def _train_until_checkpoint(self, arguments: list[str], folder: Path, checkpoint: Path) -> None:
        process = self.start(arguments, folder)
        while not checkpoint.exists() and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        output, _ = process.communicate()
        if process.returncode != -signal.SIGKILL:
            last = "\n".join(output.splitlines()[-5:])
            raise RunFailedError(f"it ended before it could be killed:\n{last}")


def compare(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> tuple[bool, float]:
    """Whether all bits are the same, and the largest difference over the largest weight."""
    kinds = [{name: (t.shape, t.dtype) for name, t in each.items()} for each in (before, after)]
    if kinds[0] != kinds[1]:
        return False, float("inf")
    identical = all(before[name].tobytes() == after[name].tobytes() for name in before)
    floats = [name for name, tensor in before.items() if np.issubdtype(tensor.dtype, np.floating)]
    differences = [np.abs(before[name] - after[name]).max() for name in floats]
    weights = [np.abs(before[name]).max() for name in floats]
    return identical, float(np.max(differences) / np.max(weights))


def compare_run(run: Run, checkouts: list[Checkout], data: str) -> tuple[bool, float]:
    """Train both encoders and compare them; a run that fails is not identical."""
    encoders = []
    for checkout in checkouts:
        with tempfile.TemporaryDirectory() as folder:
            try:
                encoders.append(checkout.train(run, data, Path(folder)))
            except RunFailedError as error:
                print(f"{run.name} failed in {checkout.path}:\n{error}", flush=True)
                return False, float("nan")
    return compare(*encoders)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, help="directory of a checkout")
    parser.add_argument("after", type=Path, help="the same")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS, help="table of a full run")
    chosen = parser.parse_args()
    checkouts = [Checkout(path.resolve()) for path in (chosen.before, chosen.after)]
    before, after = (checkout.commit() for checkout in checkouts)
    rows: list[dict[str, str]] = []
    failed: list[str] = []
    differences: list[float] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder, data = Path(temporary), "shapes"
        for checkout in checkouts:
            checkout.check_import(folder)
        listed = checkouts[0].run(["-m", "noneg", "list", "methods"], folder).splitlines()
        methods = [line.split()[0] for line in listed if line.strip()]
        if chosen.quick:
            methods = [name for name in methods if name in QUICK_METHODS]
            data = str(folder / "shapes.npz")
            checkouts[0].run(["-c", DRAW, data], folder)
        print(f"before {before}, after {after}")
        print(f"{'run':26} {'identical bits':14} largest difference / largest weight", flush=True)
        for run in list_runs(methods, checkpoint_every=2 if chosen.quick else 10):
            identical, difference = compare_run(run, checkouts, data)
            differences.append(difference)
            if not (identical or difference < run.tolerance):
                failed.append(run.name)
            row = {
                "run": run.name,
                "identical": "yes" if identical else "no",
                "largest_difference": f"{difference:.1e}" if difference else "0",
                "before": before,
                "after": after,
            }
            rows.append(row)
            print(f"{run.name:26} {row['identical']:14} {row['largest_difference']}", flush=True)
    if not chosen.quick:
        with chosen.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    largest = float(np.max(differences))
    summary = {
        "runs": len(rows),
        "identical": sum(row["identical"] == "yes" for row in rows),
        "failed": failed,
        "largest_difference": largest if np.isfinite(largest) else None,
    }
    print(json.dumps({"same_weights": summary}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
