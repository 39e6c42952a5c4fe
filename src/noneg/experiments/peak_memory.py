"""Peak memory of two steps of a run.

`python -m noneg.experiments.peak_memory CONFIG DATA` prints megabytes.

It is the process's resident set at its largest, with Python, torch and the images in it, which is
what a person needs to have. On Windows, which does not say, NaN.
"""

import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

from noneg.images import find_source, load_images
from noneg.training.config import load_config
from noneg.training.run import start


def peak_memory(path: Path, data: str) -> float:
    """Train two steps on `data` under the settings of a config file; MB."""
    config = load_config(path)
    assert config.size is not None
    assert config.batch_size is not None
    images = load_images(find_source(data), channels=config.channels or 3, size=config.size)
    pixels = images.pixels[: 2 * config.batch_size].transpose(0, 2, 3, 1)
    with tempfile.TemporaryDirectory() as directory:
        short = replace(
            config, epochs=1, evaluate=False, report=False, eval_data=None, out=directory
        )
        with redirect_stdout(sys.stderr):
            start(short, pixels)
    return peak_resident()


def peak_resident() -> float:
    """Of this process so far, in MB."""
    status = Path("/proc/self/status")
    if status.exists():
        # Linux hands `ru_maxrss` on from the process that started this one, large as that was.
        lines = status.read_text(encoding="utf-8").splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 2**10
    try:
        import resource
    except ImportError:
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    print(f"{peak_memory(Path(sys.argv[1]), sys.argv[2]):.1f}")
