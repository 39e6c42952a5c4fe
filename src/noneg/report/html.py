"""The HTML that all pages share: a section, data for scripts, and the whole document."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import final

from noneg.report.colors import IN_THE_DARK, category_css


@final
@dataclass(frozen=True)
class Section:
    """A part of the page under its own heading; all text is escaped already.

    Attributes:
        identity: the target of links to the section.
        title: plain text.
        introduction: one or two sentences of HTML; may be empty.
        body: HTML.
    """

    identity: str
    title: str
    introduction: str
    body: str

    def html(self) -> str:
        """The whole section."""
        introduction = f'<p class="introduction">{self.introduction}</p>'
        return (
            f'<section id="{self.identity}" aria-labelledby="{self.identity}-title">'
            f'<h2 id="{self.identity}-title">{self.title}'
            '<span class="at" aria-hidden="true"></span></h2>'
            f"{introduction if self.introduction else ''}{self.body}</section>"
        )


def data_script(identity: str, data: str) -> str:
    """JSON inside HTML. Without "<" in it, no text can end the script or begin another."""
    harmless = data.replace("<", "\\u003c")
    return f'<script type="application/json" id="{identity}">{harmless}</script>'


def document(
    title: str, top: str, sections: Sequence[Section], *, scripts: str, css: str = ""
) -> str:
    """A whole HTML file that loads nothing from outside itself.

    Args:
        title: plain text.
        top: HTML before the links to the sections.
        sections: in their order on the page.
        scripts: of the figures, before the page's own script.
        css: rules besides those of every page.
    """
    here = files("noneg.report")
    css = (here / "page.css").read_text(encoding="utf-8") + category_css() + css
    script = (here / "page.js").read_text(encoding="utf-8")
    links = "".join(
        f'<a href="#{each.identity}">{each.identity.capitalize()}</a>' for each in sections
    )
    body = "".join(each.html() for each in sections)
    dark = data_script("in-the-dark", json.dumps(IN_THE_DARK))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        # Nothing may load from outside. Bokeh builds its callbacks from text: 'unsafe-eval'.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data: '
        "blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'\">"
        f'<title>{escape(title)} \N{MIDDLE DOT} noneg</title><link rel="icon" href="data:,">'
        f"<style>{css}</style></head><body>"
        f'<main>{top}<nav aria-label="Sections">{links}</nav>{body}</main>'
        f"{dark}{scripts}<script>{script}</script></body></html>\n"
    )
