"""Transforms of one reward.

Rewards are ``(B,)`` or ``(B, G)``, references ``(B, M)``; see :mod:`diffalign.losses.reward_shaping`. All return a
reward in the shape of the first argument, NaN where a sample could not be scored.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses import reward_shaping as shape
from diffalign.losses.common import Moments, as_float, check_positive, check_same_shape
from diffalign.losses.recipes.registry import recipe
from diffalign.losses.reward_combination import passed_all, weighted_sum


@recipe("toolrl", "reward", low=-3.0, high=3.0)
def toolrl(format_passed: Tensor, match: Tensor, best_match: float, *, low: float, high: float) -> Tensor:
    """ToolRL (arXiv:2504.13958): format flag + a graded match mapped from ``[0, best_match]`` to [-3, 3]; in [-3, 4].

    Formula: format + low + (high - low) match / best_match

    ``format_passed`` is 1, 0 or NaN, of the shape of ``match``. Parsing of tool calls is not included.
    """
    check_positive(best_match=best_match)
    check_same_shape(format_passed=format_passed, match=match)
    return passed_all(format_passed[None]) + shape.affine(match, scale=(high - low) / best_match, shift=low)


@recipe("linear-shift", "reward")
def linear_shift(reward: Tensor, *, shift: float) -> Tensor:
    """Linear reward shaping (arXiv:2209.07288): a shift; b < 0 explores, b > 0 is conservative.

    Formula: r + shift

    Equivalent to a shift of the initial value function: it needs a critic and a discount, and has no effect under
    group-centred advantages.
    """
    return shape.affine(reward, shift=shift)


@recipe("par", "reward", k=1.0)
def par(reward: Tensor, reference: Tensor, *, k: float) -> Tensor:
    """PAR (arXiv:2502.18770; its code): a sigmoid of the reward above reference samples; the KL term stays (.005). M up
    to 10.

    Formula: mean_m sigmoid(k (r - ref_m))
    """
    return shape.sigmoid_ref(reward, reference, k=k)


@recipe("lsc", "reward", quantile=0.85)
def lsc(reward: Tensor, reference: Tensor, *, quantile: float) -> Tensor:
    """LSC (arXiv:2402.00742): log-sigmoid of the reward above the 85th percentile of reference samples of the prompt.

    Formula: log sigmoid(r - q), q = quantile of ref

    Add several transformed rewards for a logical AND. (A port takes mean + 1.0364 std for the percentile.)
    """
    return shape.logsigmoid_ref(reward, reference, quantile=quantile)


@recipe("p2r", "reward", eps=1e-6)
def p2r(win_rate: Tensor, *, eps: float) -> Tensor:
    """P2R (arXiv:2306.14111): the reward is the logit of the win rate against one fixed baseline sample of the prompt.

    Formula: log(p / (1 - p)), p = win rate clamped to [eps, 1 - eps]

    The bound ``eps`` is ours: with m votes, 1 / (2 m) is a sensible one. For intransitive preferences the paper uses
    self-play: see ``spo-minimax``.
    """
    return shape.logit_winrate(win_rate, eps=eps)


@recipe("irrl", "reward")
def irrl(probability: Tensor, *, classes: int) -> Tensor:
    """IRRL (arXiv:2302.00270; its code): a discriminator's probability of the correct class above chance.

    Formula: max(q - 1 / classes, 0)
    """
    check_positive(classes=classes)
    return shape.clipped_prob(probability, prior=1 / classes)


@recipe("vision-r1", "reward", switch=1500)
def vision_r1(format_passed: Tensor, matches: Tensor, precision: Tensor, *, step: int, switch: int) -> Tensor:
    """Vision-R1 (arXiv:2503.18013; its code, adaptive form): format + recall + precision, each with a dead band that
    tightens at optimisation step ``switch``.

    Formula: format + deadband(recall; .5, .75) + deadband(precision; .5, .75, from `switch` on .75, .9)

    An object is found if its match exceeds .5, then .75; recall saturates in [.5, .75] throughout, precision in
    [.5, .75] and then in [.75, .9]. GRPO follows (eps 1e-4, unbiased std, G = 4).

    Args:
        format_passed: ``(...)``, 1, 0 or NaN.
        matches: ``(..., N)``, best overlap (IoU) of each of N objects, NaN in padding.
        precision: ``(...)``, mean overlap of the predicted objects.
        step: optimisation steps so far.
        switch: step from which precision is stricter.
    """
    check_same_shape(format_passed=format_passed, object_matches=matches[..., 0], precision=precision)
    late = step >= switch
    found = shape.deadband(matches, low=0.75 if late else 0.5, high=0.75 if late else 0.5)
    recall = shape.deadband(found.nanmean(-1), low=0.5, high=0.75)
    exact = shape.deadband(precision, low=0.75 if late else 0.5, high=0.9 if late else 0.75)
    return passed_all(format_passed[None]) + recall + exact


@recipe("oni", "reward", tau=-0.5, power=3.0, weights=(0.1, 0.4))
def oni(
    external: Tensor,
    intrinsic: Tensor,
    count: Tensor,
    stats: Moments,
    *,
    tau: float,
    power: float,
    weights: tuple[float, float],
) -> Tensor:
    """ONI (arXiv:2410.23022; its code): external reward + an intrinsic one, thresholded and discounted by its count.

    Formula: w_0 external + w_1 z 1[z > tau] count**-power, z = standardised intrinsic reward

    The intrinsic reward is a running z-score, 0 up to ``tau``, times ``count**-power``. Power 3 and weights .1 and .4
    are those of the command in the README (the code's own defaults are 0 and 1). Annotation by a language model is not
    included.

    Args:
        external: any shape.
        intrinsic: same shape, a learned reward.
        count: same shape, number of occurrences of this message (or image cluster) in the episode, this one included.
        stats: running moments of the intrinsic reward.
        tau: threshold in standard deviations.
        power: of the count.
        weights: of the external and of the intrinsic reward.
    """
    z = shape.threshold(shape.standardize(intrinsic, stats), tau=tau)
    return weighted_sum(torch.stack([as_float(external), shape.count_discount(z, count, power=power)]), weights)
