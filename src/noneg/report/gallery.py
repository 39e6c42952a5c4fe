"""A page of rows of pictures: what a command found in a collection."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import final

import numpy as np
from jaxtyping import UInt8

from noneg.report.html import Section, document
from noneg.report.pictures import file_name, make_atlas


@final
@dataclass(frozen=True, eq=False)
class Picture:
    """A picture with what is said about it.

    Attributes:
        pixels: uint8 [C, S, S]; the same S for all pictures of a page.
        name: plain text.
        caption: plain text under the picture; may be empty.
    """

    pixels: UInt8[np.ndarray, "channels side side"]
    name: str
    caption: str = ""


@final
@dataclass(frozen=True)
class Row:
    """Pictures side by side.

    Attributes:
        pictures: from left to right.
        first: the picture that the others belong to, which is larger; None if there is none.
        title: plain text above them; may be empty.
    """

    pictures: Sequence[Picture]
    first: Picture | None = None
    title: str = ""


def gallery(title: str, subtitle: str, note: str, rows: Sequence[Row]) -> str:
    """The page, as HTML, which loads nothing from outside.

    Args:
        title: plain text.
        subtitle: plain text below it.
        note: plain text: what the rows show.
        rows: from top to bottom.
    """
    pictures = [
        each for row in rows for each in ([row.first, *row.pictures] if row.first else row.pictures)
    ]
    top = (
        f'<header><p class="brand">noneg</p><h1>{escape(title)}</h1>'
        f'<p class="subtitle">{escape(subtitle)}</p></header>'
    )
    if not pictures:
        return document(title, top, [Section("found", title, escape(note), "")], scripts="")
    atlas = make_atlas("image", np.stack([each.pixels for each in pictures]))
    body, at = [], 0
    for row in rows:
        cells = []
        for each in [row.first, *row.pictures] if row.first else row.pictures:
            kind = "cell query" if each is row.first else "cell"
            cells.append(
                f'<div class="{kind}">{atlas.picture(at, each.name)}'
                f"<small>{escape(each.caption)}</small>{file_name(each.name)}</div>"
            )
            at += 1
        heading = f"<h3>{escape(row.title)}</h3>" if row.title else ""
        body.append(f'<div class="block">{heading}<div class="row">{"".join(cells)}</div></div>')
    found = Section("found", title, escape(note), "".join(body))
    return document(title, top, [found], scripts="", css=atlas.css())
