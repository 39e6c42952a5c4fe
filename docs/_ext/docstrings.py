"""Docstrings are written to be read in an editor; this makes reStructuredText of them.

`code` becomes ``code``, an indented paragraph becomes a literal block, and characters that mean
something in reStructuredText (as in z_i or |z|) are escaped. Google sections are left to napoleon.
"""

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Yields|Note|Example)s?:$")
_MARKUP = re.compile(r"`([^`]+)`|([*|\\])|_(?!\w)")


def setup(app: "Sphinx") -> dict[str, Any]:
    """Run before napoleon, whose priority is 500."""
    app.connect("autodoc-process-docstring", _process, priority=400)
    return {"parallel_read_safe": True}


def _process(
    app: "Sphinx", what: str, name: str, obj: object, options: Any, lines: list[str]
) -> None:
    lines[:] = to_rst(lines)


def to_rst(lines: list[str]) -> list[str]:
    """The lines of a docstring as reStructuredText with Google sections."""
    paragraphs = re.split(r"\n{2,}", "\n".join(lines).strip("\n"))
    converted: list[str] = []
    in_section = False
    for paragraph in paragraphs:
        indented = paragraph.startswith("    ")
        if not indented:
            in_section = _SECTION.match(paragraph.split("\n")[0]) is not None
        if indented and not in_section:
            converted += ["::", "", *paragraph.split("\n"), ""]
        else:
            converted += [*_MARKUP.sub(_escape, paragraph).split("\n"), ""]
    return converted


def _escape(found: re.Match[str]) -> str:
    return f"``{found[1]}``" if found[1] else f"\\{found[0]}"
