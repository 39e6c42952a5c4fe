"""`noneg study list` and `noneg study NAME`."""

from pathlib import Path
from typing import Any

import yaml

from noneg.errors import NonegError
from noneg.experiments.conduct import conduct_study
from noneg.experiments.page import as_terminal_text
from noneg.studies import find_study, list_studies


def print_studies() -> None:
    """Print one line per study."""
    for study in list_studies():
        print(f"{study.name:18} {study.title} ({len(study.variants)} variants)")


def run_study(name: str, *, out: Path, assignments: list[str], **chosen: Any) -> None:
    """Run a study and print its outcomes; `assignments` are settings as NAME=VALUE.

    Raises:
        NonegError: there is no such study, or its data or a setting cannot be used.
    """
    if chosen["seeds"] < 1:
        raise NonegError(f"--seeds must be at least 1: {chosen['seeds']}")
    study = find_study(name)
    settings: dict[str, Any] = {}
    for each in assignments:
        setting, equals, value = each.partition("=")
        if not equals:
            raise NonegError(f"--set needs NAME=VALUE, such as epochs=10, not {each}")
        settings[setting.replace("-", "_")] = yaml.safe_load(value)
    judged = conduct_study(study, out=out, settings=settings, progress=True, **chosen)
    print(as_terminal_text(judged))
    print(f"\npage     {out / f'{name}.md'}\nfigure   {out / f'{name}.png'}")
    print(f"table    {out / f'{name}.csv'}\nruns     {out / 'cache'}")


def run(*, name: str, out: Path, assignments: list[str], **chosen: Any) -> None:
    """Print the studies, or run one.

    Raises:
        NonegError: see `run_study`.
    """
    if name == "list":
        print_studies()
    else:
        run_study(name, out=out, assignments=assignments, **chosen)
