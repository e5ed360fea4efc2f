"""Flat answers as one list per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Value = TypeVar("Value")


def regroup(values: Sequence[Value], questions: Sequence[Sequence[str]]) -> list[list[Value]]:
    """The values of all questions in order as one list per image, as long as its questions."""
    rest = iter(values)
    return [[next(rest) for _ in texts] for texts in questions]
