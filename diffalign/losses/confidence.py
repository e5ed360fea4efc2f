"""Rewards corrected by a stated confidence: being sure is paid for where the sample is good, and charged where not.

Both functions have the shape ``(r, confidence, mean, *, weight, bound) -> like r`` (PPO-C, arXiv:2410.09724, its code):

- ``r``: any shape, keeps its gradient; NaN stays NaN.
- ``confidence``: shape of ``r``, in [0, 1], detached. Of the sample's author, or of the reward model.
- ``mean``: running mean of the reward, a number or 0-d tensor (:func:`~diffalign.losses.trackers.update_ema`).
- ``weight``: strength, .5 in the code; ``bound``: the result is held in ``[-bound, bound]``, 10 in the code.

A confidence of 1/2, or a reward at the mean, changes nothing.
"""

from __future__ import annotations

from torch import Tensor

from diffalign.losses.common import as_float, check_not_negative, check_positive, check_probability, check_same_shape


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
