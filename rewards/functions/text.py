"""Comparing a wanted text with one that was read."""

from __future__ import annotations

import re

QUOTED = re.compile(
    r'"([^"]+)"|\u201c([^\u201d]+)\u201d|\u00ab([^\u00bb]+)\u00bb'
    r"|(?<!\w)'((?:[^']|(?<=\w)'(?=\w))+)'(?!\w)"
)
"""Straight and curly double quotes, guillemets, and single quotes that are no apostrophe."""


def quoted_text(prompt: str) -> str | None:
    """The text in quotation marks, all quotes of the prompt joined by blanks; None if it has none."""
    found = [next(filter(None, match.groups())) for match in QUOTED.finditer(prompt)]
    return " ".join(found) if found else None


def edit_distance(a: str, b: str) -> int:
    """Levenshtein distance: fewest insertions, deletions and substitutions that turn one text into the other."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (left != right))
    return row[-1]


def text_score(wanted: str, read: str, *, contained: bool = True) -> float:
    """1 - distance / length of what is wanted, not below 0, blanks and case ignored.

    Args:
        wanted: The text asked for.
        read: The text recognised.
        contained: Whether a reading that contains the text counts as right whatever stands around it (the form of
            yifan123/flow_grpo); otherwise superfluous letters cost.

    Raises:
        ValueError: If the text asked for is blank.
    """
    wanted, read = ("".join(text.split()).casefold() for text in (wanted, read))
    if not wanted:
        raise ValueError("the text asked for is blank")
    if contained and wanted in read:
        return 1.0
    return max(0.0, 1 - edit_distance(wanted, read) / len(wanted))
