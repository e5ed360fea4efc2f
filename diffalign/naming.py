"""Hints for names that a user wrote and nobody knows: one form of message for keys, rewards, recipes and commands."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, valid: Iterable[str], *, count: int = 1, cutoff: float = 0.5) -> str:
    """'; did you mean `x`?' when valid words are close, else the empty string. Case does not count.

    Args:
        word: the unknown word.
        valid: the words that exist.
        count: most words that are suggested.
        cutoff: least similarity of a suggestion, 0 (any) to 1 (equal).
    """
    known = {name.casefold(): name for name in valid}
    close = difflib.get_close_matches(word.casefold(), known, n=count, cutoff=cutoff)
    return f"; did you mean {' or '.join(f'`{known[name]}`' for name in close)}?" if close else ""


def unknown(what: str, given: object, valid: Iterable[str]) -> ValueError:
    """The error for an unknown name: the name, the nearest valid one, all valid ones."""
    known = sorted(valid)
    return ValueError(f"unknown {what} `{given}`{nearest(str(given), known, cutoff=0.4)} (valid: {', '.join(known)})")
