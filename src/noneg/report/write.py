"""Write a page; the file appears only when it is complete."""

from collections.abc import Sequence
from pathlib import Path

from noneg.errors import NonegError
from noneg.files import check_can_be_written, write_text
from noneg.images import Images
from noneg.records.directory import RunDirectory
from noneg.report.compare import several_runs
from noneg.report.page import one_run


def write_report(
    runs: Sequence[Path],
    out: Path | None = None,
    *,
    images: Images | None = None,
    most: int = 5000,
    seed: int = 0,
    progress: bool = False,
) -> Path:
    """Write the page of one run, or a page that compares several.

    Args:
        runs: directories of runs.
        out: the HTML file; by default report.html in the run, or comparison.html in the current
            directory.
        images: the images of the one run, if they are in memory; by default the run's data is
            found again, and only the images that the page shows are read.
        most: show at most this many images, at least 3: a random choice.
        seed: of that choice and of the map. On one machine the same seed gives the same page.
        progress: show a progress bar on stderr.

    Returns:
        The file.

    Raises:
        NonegError: a directory holds no run, or the file cannot be written.
    """
    if not runs:
        raise NonegError("a report needs a run: give its directory")
    if most < 3:
        raise NonegError(f"a report of {most} images is empty: give at least 3")
    if len(runs) == 1:
        run = RunDirectory(runs[0])
        out = out or run.report_file
        if run.exists():
            check_can_be_written(out)
        html = one_run(runs[0], images=images, most=most, seed=seed, progress=progress)
    else:
        out = out or Path("comparison.html")
        html = several_runs(runs)
    write_text(out, html)
    return out
