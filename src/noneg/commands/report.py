"""`noneg report`: a page about a run, or a comparison of several."""

from pathlib import Path

from noneg.networks.own import allow
from noneg.report import write_report


def run(
    *, runs: list[Path], backbone: str | None, out: Path | None, images: int, seed: int
) -> None:
    """Write the page, and print where it is.

    Raises:
        NonegError: a directory is not a run's, or the file cannot be written.
    """
    if backbone is not None:
        allow(backbone)
    print(f"report   {write_report(runs, out, most=images, seed=seed, progress=True)}")
