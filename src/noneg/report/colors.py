"""The page's colors, safe for the color-blind, in light and in dark.

Categories have Petroff's ten (2021, "Accessible Color Sequences for Data Visualization", arXiv
2107.02270), which were searched for so that people with any color vision tell them apart.
"""

from collections.abc import Iterable

H = "#2a78c8"
"""Whatever is of the representation h."""

Z = "#e07b1a"
"""Whatever is of the projection z."""

NEUTRAL = "#7b8794"
"""What has no opposite: losses, rates."""

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
"""Images of categories beyond the tenth, or of none."""

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
"""What takes a color's place on a dark ground; the others stay."""

STATES = {
    "healthy": ("good", "\N{CHECK MARK}"),
    "dimensional collapse": ("doubtful", "!"),
    "projector only": ("doubtful", "!"),
    "not learning": ("doubtful", "!"),
    "complete collapse": ("bad", "\N{MULTIPLICATION X}"),
    "exploding scale": ("bad", "\N{MULTIPLICATION X}"),
    "too early to say": ("open", "\N{HORIZONTAL ELLIPSIS}"),
}
"""A verdict's state -> class of its badge, and a sign that needs no color."""


def css_color(color: str) -> str:
    """One of `CATEGORIES` as CSS, in light and in dark."""
    return f"var(--category-{CATEGORIES.index(color)})"


def category_css() -> str:
    """The variables that `css_color` names."""

    def variables(colors: Iterable[str]) -> str:
        named = (f"--category-{number}:{color}" for number, color in enumerate(colors))
        return f":root{{{';'.join(named)}}}"

    dark = variables(IN_THE_DARK.get(color, color) for color in CATEGORIES)
    return f"{variables(CATEGORIES)}@media (prefers-color-scheme: dark){{{dark}}}"
