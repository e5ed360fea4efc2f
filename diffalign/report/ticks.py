"""Round axis ticks and their labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["nice_ticks", "padded_range", "tick_labels"]


def nice_ticks(low: float, high: float, least: int = 3, *, whole: bool = False) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten inside `[low, high]`: the coarsest that are at least `least`.

    Args:
        low: Start of the range.
        high: End of the range, above `low`.
        least: Fewest ticks wanted.
        whole: Allow whole numbers alone, as for optimisation steps; a short range may then give fewer.
    """
    top = math.floor(math.log10(high - low))
    steps = (factor * 10.0**power for power in (top, top - 1, top - 2) for factor in (5, 2, 1))
    for step in steps:
        step = max(step, 1.0) if whole else step
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 >= least or (whole and step == 1.0):
            break
    return [round(i * step, 12 - math.floor(math.log10(step))) for i in range(first, last + 1)]


def tick_labels(ticks: Sequence[float]) -> tuple[list[str], int]:
    """Labels with as many decimals as the ticks need, and the power of ten taken out of all of them (0: none).

    Returns:
        The labels and the exponent; `0.0002, 0.0004` gives `["2", "4"], -4`.
    """
    largest = max((abs(tick) for tick in ticks), default=0.0)
    magnitude = math.floor(math.log10(largest)) if largest else 0
    exponent = magnitude if magnitude <= -3 or magnitude >= 5 else 0
    scaled = [tick / 10.0**exponent for tick in ticks]
    decimals = next((d for d in range(4) if all(abs(v - round(v, d)) < 1e-6 for v in scaled)), 4)
    texts = (f"{round(value, decimals) + 0.0:.{decimals}f}" for value in scaled)
    return [text.replace("-", "−") for text in texts], exponent


def padded_range(values: Sequence[float], *, zero: bool = False) -> tuple[float, float]:
    """A range that holds all values with some air; a constant series gets a range of its own size around it.

    Args:
        values: The values, at least one.
        zero: Begin at zero (for what cannot be negative).
    """
    low, high = min(values), max(values)
    low = min(low, 0.0) if zero else low
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        low, high = (low, 1.0) if not high else (low - abs(high) / 2, high + abs(high) / 2)
    air = 0.06 * (high - low)
    return (low if zero else low - air), high + air
