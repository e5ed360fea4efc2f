"""Numbers as text, the same way on the page, in the card and in the last printed line."""

from __future__ import annotations

import math

__all__ = ["compact", "digits_for", "duration", "gain_text", "interval_text", "score", "signed", "typographic"]


def score(value: float | None, digits: int = 2) -> str:
    """A score with fixed digits, never "-0.00"; a dash for a missing one."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{round(value, digits) + 0.0:.{digits}f}"


def signed(value: float | None, digits: int = 2) -> str:
    """A difference with its sign; what rounds to zero is "+0.00" whichever side it comes from."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{round(value, digits) + 0.0:+.{digits}f}"


def interval_text(low: float, high: float, digits: int = 2) -> str:
    """`[0.06, 0.14]`."""
    return f"[{score(low, digits)}, {score(high, digits)}]"


def gain_text(gain: float, low: float, high: float, level: float = 0.95, digits: int = 2) -> str:
    """`+0.10, 95% CI [0.06, 0.14]`."""
    return f"{signed(gain, digits)}, {level * 100:g}% CI {interval_text(low, high, digits)}"


def digits_for(low: float, high: float, least: int = 2) -> int:
    """Decimals that show an interval of this width as one: `least`, more (up to 5) where it is narrower than 0.01.

    Below 1e-6 it is rounding, not an interval.
    """
    width = high - low
    return least if width < 1e-6 else max(least, min(5, math.ceil(-math.log10(width) - 1e-9)))


def compact(value: float) -> str:
    """A count with three digits: 950, 23.0k, 1.24M."""
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit * 0.9995:
            return f"{value / limit:#.3g}".rstrip(".") + suffix
    return f"{value:.0f}"


def duration(seconds: float) -> str:
    """Seconds as 4.2 s, 7 min 05 s or 2 h 03 min."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def typographic(text: str) -> str:
    """ASCII arrow and minus signs as the characters meant, for text that no program reads back."""
    return text.replace("->", "→").replace("-", "−")
