"""Numbers as text for people: three significant digits, separators of thousands."""

import math

_MINUS = "\N{MINUS SIGN}"


def number(value: int | float) -> str:
    """Three significant digits; no decimals from 1,000; an exponent below 0.001 and from 1e6."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else f"{_MINUS if value < 0 else ''}infinite"
    size = abs(value)
    if value == int(value) and size < 1e6:
        text = f"{int(size):,}"
    elif size < 1e-3 or size >= 1e6:
        digits, exponent = f"{size:.2e}".split("e")
        text = f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"
    elif size >= 999.5:
        text = f"{size:,.0f}"
    else:
        # Round first, so that 9.996 becomes 10.0 and not 10.00.
        size = float(f"{size:.2e}")
        text = f"{size:.{max(0, 2 - math.floor(math.log10(size)))}f}"
    return f"{_MINUS if value < 0 else ''}{text}"


def percent(share: int | float) -> str:
    """A share in [0, 1] as a percentage with one decimal."""
    return f"{100 * share:.1f}%"


def duration(seconds: int | float) -> str:
    """The two largest of hours, minutes and seconds."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min"


def count(amount: int, singular: str) -> str:
    """`1 image`, `2,000 images`."""
    return f"{amount:,} {singular}{'' if amount == 1 else 's'}"
