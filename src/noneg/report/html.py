"""A part of the page, under a heading of its own."""

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Section:
    """HTML that is safe already.

    Attributes:
        identity: where links go.
        title: plain text.
        introduction: a sentence or two, HTML.
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
