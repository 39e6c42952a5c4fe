"""The documentation site: `sphinx-build -W --keep-going -b html docs build/docs`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import noneg

project = "noneg"
author = "The noneg authors"
release = noneg.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "docstrings",
    "command_line",
]
exclude_patterns = ["_ext"]

html_theme = "furo"
html_title = "noneg"
html_show_copyright = False
html_show_sourcelink = False

# Links such as [text](views.md#policies) go to headings, as they do on a code host.
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
# "Attributes" of a dataclass describe its fields; autodoc lists the fields once more otherwise.
napoleon_use_ivar = True
smartquotes = False  # They turn the hyphens of flags into dashes.
