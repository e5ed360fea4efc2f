"""Errors for names that a user wrote and nobody knows."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown(what: str, given: object, valid: Iterable[str]) -> ValueError:
    """The error for an unknown name: what was given, the nearest valid name, all valid ones."""
    known = sorted(valid)
    close = difflib.get_close_matches(str(given), known, n=1, cutoff=0.4)
    hint = f"; did you mean `{close[0]}`?" if close else ""
    return ValueError(f"unknown {what} `{given}`{hint} (valid: {', '.join(known)})")
