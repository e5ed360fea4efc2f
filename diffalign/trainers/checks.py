"""What a check says."""

from __future__ import annotations

from typing import NamedTuple


class Check(NamedTuple):
    """One thing looked at.

    Attributes:
        name: what was checked.
        passed: whether it holds.
        figure: what was measured.
        advice: what to do when it does not hold.
    """

    name: str
    passed: bool
    figure: str
    advice: str
