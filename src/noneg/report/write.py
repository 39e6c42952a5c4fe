"""Write a page, whole or not at all."""

from collections.abc import Sequence
from pathlib import Path

from noneg.errors import NonegError
from noneg.files import whole_or_not_at_all
from noneg.images import Images
from noneg.report.compare import several_runs
from noneg.report.page import one_run


def write_report(
    runs: Sequence[Path],
    out: Path | None = None,
    *,
    images: Images | None = None,
    most: int = 5000,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Write the page of one run, or a page that compares several.

    Args:
        runs: directories of runs.
        out: the HTML file; by default report.html in the run, or comparison.html here.
        images: what the one run was trained on, where it is in memory already; else the run's own
            data is looked for, and of it only what is shown is read.
        most: show at most so many images, a random choice.
        seed: of that choice and of the map. On one machine the same seed gives the same figures.
        progress: show a bar on stderr.

    Returns:
        The file.

    Raises:
        NonegError: a directory is not a run's, or the file cannot be written.
    """
    if not runs:
        raise NonegError("a report needs a run: give its directory")
    if most < 3:
        raise NonegError(f"a report of {most} images is empty: give at least 3")
    if len(runs) == 1:
        out = out or runs[0] / "report.html"
        html = one_run(runs[0], images=images, most=most, seed=seed, progress=progress)
    else:
        out = out or Path("comparison.html")
        html = several_runs(runs)
    try:
        with whole_or_not_at_all(out) as unfinished:
            unfinished.write_text(html, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise NonegError(
            f"{out} cannot be written ({error.strerror or error}): give a file in a folder that "
            "exists and has room"
        ) from error
    return out
