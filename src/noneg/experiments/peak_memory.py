"""Peak memory of two training steps.

`python -m noneg.experiments.peak_memory RUN DATA` prints megabytes: the largest resident set of
the process, including Python, torch and the images, because that is what a machine must have.
Windows does not report it: NaN.
"""

import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

from noneg.images import find_source, load_images
from noneg.records.directory import RunDirectory
from noneg.training.config import load_config
from noneg.training.plan import plan_of
from noneg.training.run import start


def peak_memory(run: RunDirectory, data: str) -> float:
    """Train two steps on `data` with the settings of `run`; returns MB."""
    plan = plan_of(load_config(run.config_file))
    images = load_images(find_source(data), channels=plan.channels, size=plan.size)
    pixels = images.pixels[: 2 * plan.batch_size].transpose(0, 2, 3, 1)
    with tempfile.TemporaryDirectory() as directory:
        short = replace(
            plan.config,
            epochs=1,
            steps=None,
            evaluate=False,
            report=False,
            eval_data=None,
            out=directory,
        )
        with redirect_stdout(sys.stderr):
            start(short, pixels)
    return peak_resident()


def peak_resident() -> float:
    """Peak resident set of this process so far, in MB."""
    status = Path("/proc/self/status")
    if status.exists():
        # On Linux `ru_maxrss` is inherited from the parent process, which may be larger.
        lines = status.read_text(encoding="utf-8").splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 2**10
    try:
        import resource
    except ImportError:
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    print(f"{peak_memory(RunDirectory(Path(sys.argv[1])), sys.argv[2]):.1f}")
