"""The questions: one short file for each study. `noneg.experiments` is their machine."""

import importlib
from difflib import get_close_matches

from noneg.errors import NonegError
from noneg.experiments.study import Study

# In the order of the story that they tell.
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


def list_studies() -> list[Study]:
    """All studies, in the order of the story."""
    return [find_study(name) for name in NAMES]


def find_study(name: str) -> Study:
    """Load a study.

    Raises:
        NonegError: there is none of this name.
    """
    if name not in NAMES:
        close = get_close_matches(name, NAMES, n=1)
        meant = f" (did you mean {close[0]}?)" if close else ""
        raise NonegError(f"no study '{name}'{meant}; there are: {', '.join(NAMES)}")
    study = importlib.import_module(f"noneg.studies.{name.replace('-', '_')}").STUDY
    assert isinstance(study, Study)
    return study
