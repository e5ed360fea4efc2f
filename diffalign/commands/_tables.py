"""Plain text tables."""

from __future__ import annotations

from collections.abc import Sequence

CUT, GAP = "..", 2
"""End of a cell that was cut; spaces between columns."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Columns as wide as their widest cell, a rule under the head; the last column is not padded.

    Args:
        head: titles.
        rows: cells.
        width: characters in a line; the widest columns are cut down to it, the first one never.
    """
    lines = [list(head), *(list(row) for row in rows)]
    widths = _fitted([max(len(line[i]) for line in lines) for i in range(len(head))], width)
    text = [
        (" " * GAP).join(_cell(cell, size) for cell, size in zip(line, widths, strict=True)).rstrip() for line in lines
    ]
    return "\n".join([text[0], (" " * GAP).join("-" * size for size in widths), *text[1:]])


def _fitted(widths: list[int], limit: int | None) -> list[int]:
    """The widths, the widest but the first made smaller until they fit."""
    room = None if limit is None else limit - GAP * (len(widths) - 1)
    while room is not None and sum(widths) > room and max(widths[1:], default=0) > len(CUT) + 1:
        widths[widths.index(max(widths[1:]), 1)] -= 1
    return widths


def _cell(text: str, size: int) -> str:
    return (text if len(text) <= size else text[: size - len(CUT)] + CUT).ljust(size)
