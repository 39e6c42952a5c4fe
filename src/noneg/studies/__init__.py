"""The questions: one short file for each study. `noneg.experiments` is their machine."""

import importlib
from difflib import get_close_matches

from noneg.errors import NonegError
from noneg.experiments.study import Study

NAMES = (
    "bare-siamese",
    "negatives",
    "byol-ablations",
    "simsiam-ablations",
    "em",
    "directpred",
    "barlow-and-vicreg",
    "two-families",
    "augmentations",
)
"""In the order in which `docs/studies.md` tells them."""


def list_studies() -> list[Study]:
    """All studies, in the order of `NAMES`."""
    return [find_study(name) for name in NAMES]


def find_study(name: str) -> Study:
    """Load a study.

    Raises:
        NonegError: no study has this name.
    """
    if name not in NAMES:
        similar = get_close_matches(name, NAMES, n=1)
        meant = f" (did you mean {similar[0]}?)" if similar else ""
        raise NonegError(f"no study '{name}'{meant}; there are: {', '.join(NAMES)}")
    study = importlib.import_module(f"noneg.studies.{name.replace('-', '_')}").STUDY
    assert isinstance(study, Study)
    return study
