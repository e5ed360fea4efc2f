"""Where the stochastic steps stand among the others, and how they move while training goes on (MixGRPO, 2507.21802).

A window scheduler is a list of positions and a dwell, ``(position, T, every) -> iterations spent there``; positions are
visited in order, again and again. The position is a function of the iteration alone, so that nothing needs saving.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

WindowSchedule = Callable[[int, int, int], int]
"""(position, T, every) -> iterations at this position, at least 1."""

DECAY_RATE = 0.1
"""Of the exponential dwell, per step beyond the middle of the schedule (MixGRPO's code)."""


def window(total: int, start: int, size: int) -> torch.Tensor:
    """(T,) bool mask of the steps [start, start + size), for `dynamics.where`.

    Raises:
        ValueError: an empty window or one that leaves the schedule.
    """
    if size < 1 or start < 0 or start + size > total:
        raise ValueError(f"the window [{start}, {start + size}) does not lie in a schedule of {total} steps")
    k = torch.arange(total)
    return (k >= start) & (k < start + size)


def constant_window(position: int, total: int, every: int) -> int:
    """`every` iterations at each position (MixGRPO's "progressive")."""
    return every


def linear_window(position: int, total: int, every: int) -> int:
    """From `every` at the first step down to a quarter of it at the last (MixGRPO's "decay")."""
    least = max(1, every // 4)
    progress = position / max(total - 1, 1)
    return max(least, int(every * (1 - progress) + least * progress))


def exponential_window(position: int, total: int, every: int) -> int:
    """`every` in the first half, then falling by a tenth per step (MixGRPO's "exp_decay": step 13 of 25 on)."""
    late = max(0, position - math.ceil(total / 2))
    return math.ceil(every * math.exp(-DECAY_RATE * late))


def window_position(
    iteration: int, positions: Sequence[int], total: int, every: int, dwell: WindowSchedule = constant_window
) -> int:
    """The position at an iteration.

    Args:
        iteration: training iteration (rollout), from 0.
        positions: window starts, in the order in which they are visited.
        total: T.
        every: iterations at a position, as `dwell` reads it.
        dwell: how long the window stays.

    Raises:
        ValueError: no positions, or a time to stay below 1.
    """
    if not positions or every < 1:
        raise ValueError(
            f"a window needs positions and at least 1 iteration at each; got {list(positions)} and {every}"
        )
    stays = [dwell(position, total, every) for position in positions]
    left = iteration % sum(stays)
    for position, stay in zip(positions, stays, strict=True):
        if left < stay:
            return position
        left -= stay
    return positions[-1]


def progressive_start(iteration: int, total: int, size: int, *, every: int = 25, stride: int = 1) -> int:
    """MixGRPO's window position: moves by stride each `every` iterations, then starts again at 0.

    The last position keeps the window full and clear of step T-1, which has no noise left to learn from; the released
    code lets it shrink to nothing there.

    Args:
        iteration: training iteration, from 0.
        total: T.
        size: window length, at most T - 1.
        every: iterations at each position.
        stride: steps moved.

    Raises:
        ValueError: a window that does not fit.
    """
    if not 1 <= size < total:
        raise ValueError(f"a window of {size} steps does not fit in the first {total - 1} of {total} steps")
    return window_position(iteration, range(0, total - size, stride), total, every)
