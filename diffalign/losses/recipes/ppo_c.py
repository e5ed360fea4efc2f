"""PPO-C: rewards corrected by a verbalised confidence, raised above the mean reward and lowered below it.

Both functions have the shape ``(r, confidence, mean, *, weight, bound) -> like r`` (PPO-C, arXiv:2410.09724, its code):

- ``r``: any shape, with gradient; NaN stays NaN.
- ``confidence``: shape of ``r``, in [0, 1], detached; of the policy or of the reward model.
- ``mean``: running mean of the reward, a number or 0-d tensor (:func:`~diffalign.losses.trackers.update_ema`).
- ``weight``: strength, .5 in the code; ``bound``: the result is clamped to ``[-bound, bound]``, 10 in the code.

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
    """Return ``r + weight * sign(r - mean) * |r| * (confidence - 1/2)``, the code's default. A reward equal to the mean
    is unchanged [ours].

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
    """PPO-C (arXiv:2410.09724; its code, form "threshold", the default of its command line): confidence raises a reward
    above the running mean and lowers one below it.

    Formula: clamp(r + weight sign(r - mean) |r| (confidence - 1/2), +-bound)

    The mean includes this batch, and a reward equal to it is unchanged (sign(0) = 0) [ours]. The other form is
    :func:`~diffalign.losses.recipes.ppo_c.confidence_difference`. The reward model's loss is :func:`ppo_m`, the
    preference loss :func:`cdpo`.

    Args:
        mean: mean returned by the previous call, None at the start.
        reward: any shape.
        confidence: same shape, in [0, 1].
        weight: strength.
        rate: of the running mean.
        bound: of the result.
    """
    mean = update_ema(mean, reward, rate=rate)
    return Calibrated(mean, confidence_threshold(reward, confidence, mean, weight=weight, bound=bound))


def ppo_m(win_high: Tensor, win_low: Tensor, lose_high: Tensor, lose_low: Tensor) -> Tensor:
    """PPO-M (arXiv:2410.09724; its code): the chosen answer should score higher with high confidence, the rejected one
    with low.

    Four scores ``(B,)`` of one pair: the chosen and the rejected answer, each with high and with low confidence.
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
