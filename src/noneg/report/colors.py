"""The colors of the page, for light and dark screens, and for people with any color vision.

Categories have the ten colors of Petroff (2021, "Accessible Color Sequences for Data
Visualization", arXiv 2107.02270), which were optimized for color-vision deficiencies.
"""

from collections.abc import Iterable

H = "#2a78c8"
"""The representation h."""

Z = "#e07b1a"
"""The projection z."""

NEUTRAL = "#7b8794"
"""What belongs to neither: losses, learning rates."""

CATEGORIES = (
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#94a4a2",
    "#832db6",
    "#a96b59",
    "#e76300",
    "#b9ac70",
    "#717581",
    "#92dadd",
)

OTHER = "#b4bac2"
"""Images of the eleventh category and all further ones."""

INK, GRID = "#5a6472", "#e6e8eb"

IN_THE_DARK = {
    INK: "#9aa5b3",
    GRID: "#2b323b",
    H: "#5aa6f0",
    Z: "#f2994a",
    NEUTRAL: "#a3aebb",
    OTHER: "#59626e",
    "#832db6": "#b072e0",
    "#bd1f01": "#e2553a",
    "#717581": "#8f94a3",
}
"""The colors that differ on a dark background."""

STATES = {
    "healthy": ("good", "\N{CHECK MARK}"),
    "dimensional collapse": ("doubtful", "!"),
    "projector only": ("doubtful", "!"),
    "not learning": ("doubtful", "!"),
    "complete collapse": ("bad", "\N{MULTIPLICATION X}"),
    "exploding scale": ("bad", "\N{MULTIPLICATION X}"),
    "too early to say": ("open", "\N{HORIZONTAL ELLIPSIS}"),
}
"""A verdict's state -> the CSS class of its badge, and a sign that needs no color."""


def css_color(color: str) -> str:
    """One of `CATEGORIES` as a CSS variable, which differs on dark screens."""
    return f"var(--category-{CATEGORIES.index(color)})"


def category_css() -> str:
    """The variables that `css_color` names."""

    def variables(colors: Iterable[str]) -> str:
        named = (f"--category-{number}:{color}" for number, color in enumerate(colors))
        return f":root{{{';'.join(named)}}}"

    dark = variables(IN_THE_DARK.get(color, color) for color in CATEGORIES)
    return f"{variables(CATEGORIES)}@media (prefers-color-scheme: dark){{{dark}}}"
