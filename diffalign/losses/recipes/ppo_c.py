"""Rewards corrected by a stated confidence: being sure is paid for where the sample is good, and charged where not.

Both functions have the shape ``(r, confidence, mean, *, weight, bound) -> like r`` (PPO-C, arXiv:2410.09724, its code):

- ``r``: any shape, keeps its gradient; NaN stays NaN.
- ``confidence``: shape of ``r``, in [0, 1], detached. Of the sample's author, or of the reward model.
- ``mean``: running mean of the reward, a number or 0-d tensor (:func:`~diffalign.losses.trackers.update_ema`).
- ``weight``: strength, .5 in the code; ``bound``: the result is held in ``[-bound, bound]``, 10 in the code.

A confidence of 1/2, or a reward at the mean, changes nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from diffalign.losses.common import (
    as_float,
    check_not_negative,
    check_positive,
    check_probability,
    check_same_shape,
)
from diffalign.losses.preference import logistic, pair_margin
from diffalign.losses.recipes.registry import recipe
from diffalign.losses.trackers import update_ema


def _inputs(
    r: Tensor, confidence: Tensor, mean: float | Tensor, weight: float, bound: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Widened rewards, their deviation from the mean, and ``weight * (confidence - 1/2)``."""
    check_same_shape(r=r, confidence=confidence)
    check_probability(confidence=as_float(confidence).nan_to_num(nan=0.5))
    check_not_negative(weight=weight)
    check_positive(bound=bound)
    r = as_float(r)
    shift = mean.detach().to(r) if isinstance(mean, Tensor) else mean
    return r, r - shift, weight * (confidence.detach().to(r.dtype) - 0.5)


def confidence_difference(
    r: Tensor, confidence: Tensor, mean: float | Tensor, *, weight: float = 0.5, bound: float = 10.0
) -> Tensor:
    """Return ``r + weight * (r - mean) * (confidence - 1/2)``.

    Raises:
        ValueError: shapes differ, or a number is outside its range.
    """
    r, deviation, push = _inputs(r, confidence, mean, weight, bound)
    return (r + push * deviation).clamp(-bound, bound)


def confidence_threshold(
    r: Tensor, confidence: Tensor, mean: float | Tensor, *, weight: float = 0.5, bound: float = 10.0
) -> Tensor:
    """Return ``r + weight * sign(r - mean) * |r| * (confidence - 1/2)``, the code's default. A reward that equals the
    mean stays as it is [ours].

    Raises:
        ValueError: shapes differ, or a number is outside its range.
    """
    r, deviation, push = _inputs(r, confidence, mean, weight, bound)
    return (r + push * deviation.sign() * r.abs()).clamp(-bound, bound)


class Calibrated(NamedTuple):
    """The running mean of the reward, for the next call, and the corrected reward."""

    mean: Tensor
    reward: Tensor


@recipe("ppo-c", "reward", weight=0.5, rate=0.1, bound=10.0)
def ppo_c(
    mean: Tensor | None, reward: Tensor, confidence: Tensor, *, weight: float, rate: float, bound: float
) -> Calibrated:
    """PPO-C (arXiv:2410.09724; its code, form "threshold", the default of its command line): the reward is raised by
    confidence above the running mean and lowered below it.

    Formula: clamp(r + weight sign(r - mean) |r| (confidence - 1/2), +-bound)

    The mean takes in this batch before it is compared with, and a reward that equals it stays as it is (sign(0) = 0)
    [ours]. The other form is :func:`~diffalign.losses.recipes.ppo_c.confidence_difference`. The reward model's loss is
    :func:`ppo_m`, the preference loss :func:`cdpo`.

    Args:
        mean: what an earlier call returned, None at the start.
        reward: any shape.
        confidence: same shape, in [0, 1].
        weight: strength.
        rate: of the running mean.
        bound: of the result.
    """
    mean = update_ema(mean, reward, rate=rate)
    return Calibrated(mean, confidence_threshold(reward, confidence, mean, weight=weight, bound=bound))


def ppo_m(win_high: Tensor, win_low: Tensor, lose_high: Tensor, lose_low: Tensor) -> Tensor:
    """PPO-M (arXiv:2410.09724; its code): a good answer should score higher with high confidence, a bad one with low.

    Four scores ``(B,)`` of one pair: the better and the worse answer, each with a high and a low confidence stated.
    With log-ratios times beta for scores this is the first part of :func:`cdpo`.
    """
    return logistic(pair_margin(win_high, win_low)) + logistic(pair_margin(lose_low, lose_high))


def cdpo(
    win_high: Tensor, win_low: Tensor, lose_high: Tensor, lose_low: Tensor, dpo_loss: Tensor, *, beta: float
) -> Tensor:
    """CDPO (arXiv:2410.09724; its code): half of :func:`ppo_m` on log-ratios times beta, plus the plain DPO loss."""
    quartet = ppo_m(*(beta * as_float(r) for r in (win_high, win_low, lose_high, lose_low)))
    check_same_shape(quartet=quartet, dpo_loss=dpo_loss)
    return quartet / 2 + dpo_loss
