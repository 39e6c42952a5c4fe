"""A run in a notebook: its verdict, and the whole report in a frame of its own."""

from html import escape
from pathlib import Path

from noneg.records.directory import RunDirectory

_HEIGHT = 720


def run_in_notebook(directory: Path, state: str, sentence: str) -> str:
    """HTML for Jupyter, VS Code and Colab.

    The report is a page with styles and scripts of its own. In a frame whose content is part of the
    notebook it needs no server, and neither page changes the other.

    Args:
        directory: of the run.
        state: of the verdict.
        sentence: of the verdict.
    """
    top = f"<p><b>{escape(state)}</b>: {escape(sentence)}</p>"
    try:
        page = RunDirectory(directory).report_file.read_text(encoding="utf-8")
    except OSError:
        return f"{top}<p>There is no report in {escape(str(directory))}.</p>"
    return (
        f'{top}<iframe srcdoc="{escape(page)}" sandbox="allow-scripts" loading="lazy" '
        f'style="width:100%;height:{_HEIGHT}px;border:1px solid #ccc"></iframe>'
    )
