"""Filters of groups: dynamic sampling.

All have one shape, ``(rewards (B, G), *, ..., mask (B, G)) -> (B,)`` bool, True where the group is kept. NaN, infinite
and masked rewards are left out; a group without any is dropped. Equal rewards have a variance of exactly 0.
"""

from __future__ import annotations

from torch import Tensor

from diffalign.losses.advantages import group_std, mean_center, usable
from diffalign.losses.common import check_not_negative, check_probability, keep


def _moments(rewards: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and population std ``(B,)`` of the valid rewards, and which groups have one."""
    valid = usable(rewards, mask)
    rewards = keep(rewards, valid)
    std = group_std(rewards, valid, 0.0, unbiased=False)
    return mean_center(rewards, valid)[:, 0], std[:, 0], valid.any(1)


def variance(rewards: Tensor, *, above: float = 0.0, mask: Tensor | None = None) -> Tensor:
    """Keep groups whose population variance is ``> above`` (Temporal-R1; 0 drops only groups of equal rewards, as
    DAPO's recipe does).

    Raises:
        ValueError: ``above`` is negative, or a shape does not fit.
    """
    check_not_negative(above=above)
    _, std, some = _moments(rewards, mask)
    return some & (std**2 > above)


def pass_rate(passed: Tensor, *, low: float = 0.0, high: float = 1.0, mask: Tensor | None = None) -> Tensor:
    """Keep groups whose share of passes is strictly between ``low`` and ``high`` (DYPO, ODE, Oreal).

    ``passed (B, G)``: 1 or True for a success, 0 for a failure; graded rewards in between count in proportion.

    Raises:
        ValueError: not ``0 <= low < high <= 1``, or a shape does not fit.
    """
    check_probability(low=low, high=high)
    if not low < high:
        raise ValueError(f"low must be below high, got {low} and {high}")
    mean, _, some = _moments(passed, mask)
    return some & (mean > low) & (mean < high)


def not_saturated(
    rewards: Tensor, *, mean_above: float = 0.9, std_below: float = 0.05, mask: Tensor | None = None
) -> Tensor:
    """Drop groups of high *and* uniform reward, mean > 0.9 and population std < 0.05 (UniWorld-V2, the filter of the
    paper).

    Raises:
        ValueError: ``std_below`` is negative, or a shape does not fit.
    """
    check_not_negative(std_below=std_below)
    mean, std, some = _moments(rewards, mask)
    return some & ~((mean > mean_above) & (std < std_below))


def unsolved_and_varied(
    rewards: Tensor, *, mean_above: float = 0.9, std_below: float = 0.05, mask: Tensor | None = None
) -> Tensor:
    """Drop groups of high *or* uniform reward: the training mask of UniWorld-V2's code, stricter than its filter.

    Raises:
        ValueError: ``std_below`` is negative, or a shape does not fit.
    """
    check_not_negative(std_below=std_below)
    mean, std, some = _moments(rewards, mask)
    return some & (mean <= mean_above) & (std >= std_below)


def hopeful(rewards: Tensor, *, at_least: float, mask: Tensor | None = None) -> Tensor:
    """Keep groups whose best reward is at least ``at_least`` (R3)."""
    valid = usable(rewards, mask)
    return (valid & (rewards >= at_least)).any(1)
