"""`noneg report`: a page about a run, or a comparison of several."""

from pathlib import Path

from noneg.report import write_report


def run(*, runs: list[Path], out: Path | None, images: int, seed: int) -> None:
    """Write the page, and print where it is.

    Raises:
        NonegError: a directory is not a run's, or the file cannot be written.
    """
    print(f"report   {write_report(runs, out, most=images, seed=seed, progress=True)}")
