"""The questions: one short file for each study. `noneg.experiments` is their machine."""

import importlib
import pkgutil
from difflib import get_close_matches

from noneg.errors import NonegError
from noneg.experiments.study import Study


def study_names() -> list[str]:
    """The names of all studies: those of the modules here, with hyphens."""
    return [module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__)]


def list_studies() -> list[Study]:
    """All studies, in the order in which `docs/studies.md` tells them."""
    return sorted(map(find_study, study_names()), key=lambda study: (study.chapter, study.name))


def find_study(name: str) -> Study:
    """Load a study.

    Raises:
        NonegError: no study has this name.
    """
    names = study_names()
    if name not in names:
        similar = get_close_matches(name, names, n=1)
        meant = f" (did you mean {similar[0]}?)" if similar else ""
        raise NonegError(f"no study '{name}'{meant}; there are: {', '.join(names)}")
    study = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").STUDY
    assert isinstance(study, Study)
    return study
