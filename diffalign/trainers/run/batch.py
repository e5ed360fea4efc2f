"""The unit of work of every trainer: a batch, cut into updates, cut into micro-batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor

Record = Mapping[str, Any]
"""{"prompt": str, "metadata": dict}."""


class Update(NamedTuple):
    """One optimiser step.

    Attributes:
        micro_batches: numbers of its micro-batches, over all processes.
        rows: (n,) long, global samples over which the terms of the loss average.
    """

    micro_batches: range
    rows: Tensor


class Batch(Protocol):
    """What `collect` returns.

    A batch is listed once, the same on every process; each process holds the micro-batches whose numbers it owns.
    """

    @property
    def samples(self) -> int:
        """N, the number of samples over all processes."""
        ...

    @property
    def mine(self) -> Mapping[int, Any]:
        """Micro-batch number -> what this process prepared for it."""
        ...

    def updates(self) -> Sequence[Update]:
        """The optimiser steps of one pass over the batch."""
        ...


def cut_updates(sizes: Sequence[Sequence[Tensor]]) -> list[Update]:
    """Updates from the (rows of each micro-batch) of each update; micro-batches are numbered through."""
    updates, first = [], 0
    for pieces in sizes:
        updates.append(Update(range(first, first + len(pieces)), torch.cat(list(pieces))))
        first += len(pieces)
    return updates


def as_one_update(batch: Batch) -> Update:
    """All samples of a batch in one optimiser step."""
    return Update(range(sum(len(update.micro_batches) for update in batch.updates())), torch.arange(batch.samples))


def gather_rows(accelerator: Accelerator, values: Tensor, rows: Tensor, total: int) -> Tensor:
    """(total, ...) tensor, equal on every process, from each process's own rows (n, ...); every row has one owner."""
    out = torch.zeros((total, *values.shape[1:]), dtype=values.dtype, device=accelerator.device)
    out[rows.to(out.device)] = values.to(out.device)
    return accelerator.reduce(out, reduction="sum") if accelerator.num_processes > 1 else out
