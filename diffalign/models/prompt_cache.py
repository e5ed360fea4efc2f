"""Encoded prompts kept on the CPU, bounded in bytes, and their rows put together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

PROMPT_CACHE_BYTES = 8 * 2**30
"""Encodings kept per model. One prompt takes 2.6 MB in SD3 and 16 MB in FLUX.2 (half precision)."""

Row = dict[str, Tensor]


class PromptCache:
    """Encodings by prompt and kind, least recently used dropped first.

    Args:
        limit: bytes kept; default `PROMPT_CACHE_BYTES`.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._rows: OrderedDict[tuple[str, bool], Row] = OrderedDict()
        self._bytes = 0

    def __contains__(self, key: tuple[str, bool]) -> bool:
        return key in self._rows

    def __getitem__(self, key: tuple[str, bool]) -> Row:
        self._rows.move_to_end(key)
        return self._rows[key]

    def put(self, key: tuple[str, bool], row: Row) -> None:
        """Keep an encoding."""
        self._rows[key] = {name: value.detach().cpu() for name, value in row.items()}
        self._bytes += _size(self._rows[key])

    @property
    def full(self) -> bool:
        """True when nothing fits without dropping something."""
        return self._bytes >= self._bound

    def trim(self) -> None:
        """Drop what is over the limit."""
        while self._rows and self._bytes > self._bound:
            _, row = self._rows.popitem(last=False)
            self._bytes -= _size(row)

    @property
    def _bound(self) -> int:
        return PROMPT_CACHE_BYTES if self._limit is None else self._limit


def stacked(rows: Sequence[Row]) -> Row:
    """Rows of one leading entry each -> one tensor per name.

    Names of unequal length get zeros at the end of dimension 1 (False in boolean masks), so a family whose prompts have
    lengths of their own needs a mask among its names.
    """
    return {name: torch.cat(_padded([row[name] for row in rows])) for name in rows[0]}


def _padded(values: list[Tensor]) -> list[Tensor]:
    if values[0].dim() < 2 or len({value.shape[1] for value in values}) == 1:
        return values
    length = max(value.shape[1] for value in values)
    return [
        torch.cat([value, value.new_zeros(1, length - value.shape[1], *value.shape[2:])], dim=1) for value in values
    ]


def _size(row: Row) -> int:
    return sum(value.numel() * value.element_size() for value in row.values())
