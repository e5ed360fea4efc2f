"""Several rewards added, multiplied or gated.

Rewards are ``(...)``, all of one shape; a stack is K first, ``(K, ...)``. Checks are 1, 0, or NaN if not evaluated. The
result is ``(...)``, NaN where a reward of non-zero weight is. Settings without a default are not stated by the paper,
or not confirmed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffalign.losses.common import as_float, check_positive, check_probability, check_same_shape
from diffalign.losses.recipes.registry import recipe
from diffalign.losses.reward_combination import (
    Weights,
    gate,
    passed_all,
    product,
    stacked,
    tiers,
    weighted_sum,
)
from diffalign.losses.reward_shaping import distance_decay


def _sum(*terms: tuple[float, Tensor]) -> Tensor:
    """Weighted sum of named terms of one shape."""
    check_same_shape(**{f"term {n}": term for n, (_, term) in enumerate(terms)})
    return weighted_sum(torch.stack([as_float(term) for _, term in terms]), [weight for weight, _ in terms])


@recipe("harmo", "reward")
def harmo(
    rule: Tensor, model: Tensor, aspects: Tensor, confidence: Tensor, passed: Tensor, *, weights: Sequence[float]
) -> Tensor:
    """HARMO [derived from the abstract]: rule and model reward mixed by the rule's confidence, plus aspect rewards,
    gated by format. The length penalty is an aspect; its form and all weights are unconfirmed.

    Formula: passed (w_0 (c rule + (1 - c) model) + sum_k w_k aspect_k)

    Args:
        rule: rule-based reward.
        model: reward-model score.
        aspects: ``(K, ...)``.
        confidence: in the rule, in [0, 1], shape of ``rule``; detached. At 0 or 1 the other one may be NaN.
        passed: format check.
        weights: 1 + K numbers: of the mix, and of each aspect.
    """
    check_probability(confidence=as_float(confidence))
    share = torch.stack([as_float(confidence), 1 - as_float(confidence)])
    mix = weighted_sum(torch.stack([as_float(rule), as_float(model)]), share)
    return gate(weighted_sum(torch.cat([mix[None], stacked(aspects)]), weights), passed[None])


@recipe("lav-cot", "reward")
def lav_cot(aspects: Tensor, *, weights: Weights) -> Tensor:
    """LaV-CoT [derived from the abstract]: weighted sum of verifiable aspect rewards ``(K, ...)`` under plain GRPO.

    Formula: sum_k w_k aspect_k
    """
    return weighted_sum(aspects, weights)


@recipe("pagellm", "reward")
def pagellm(page: Tensor, items: Tensor, *, weight: float) -> Tensor:
    """PageLLM [derived from the abstract]: the reward of a page plus ``weight`` times the mean reward of its items.

    Formula: page + weight mean_n items_n

    ``items`` is ``(..., N)``, NaN in padding. On images: the whole image and its regions.
    """
    return _sum((1.0, page), (weight, as_float(items).nanmean(-1)))


@recipe("rl-text2vis", "reward")
def rl_text2vis(scores: Tensor, passed: Tensor, *, weights: Weights) -> Tensor:
    """RL-Text2Vis [derived from the abstract]: weighted sum of answer, code-validity and chart-quality scores
    ``(3, ...)``; 0 on a format failure.

    Formula: passed sum_k w_k score_k
    """
    return gate(weighted_sum(scores, weights), passed[None], floor=0.0)


@recipe("druggen", "reward")
def druggen(affinity: Tensor, valid: Tensor, *, floor: float = 0.0) -> Tensor:
    """DrugGen [derived from the abstract]: an affinity reward for valid samples, else a constant.

    Formula: affinity where valid, else floor
    """
    return gate(affinity, valid[None], floor=floor)


@recipe("verireason", "reward")
def verireason(passed: Tensor, *, values: Sequence[float]) -> Tensor:
    """VeriReason [derived from the abstract]: tiered rewards of a test bench.

    Formula: values[n], n = number of checks passed before the first failure

    ``passed`` is ``(C, ...)``, the first check first (parses, compiles, behaves); ``values`` C + 1 numbers. On images:
    objects present, counts correct, positions correct.
    """
    return tiers(passed, values)


@recipe("rrvf", "reward")
def rrvf(similarity: Tensor, rendered: Tensor, format_passed: Tensor, *, weight: float) -> Tensor:
    """RRVF [derived from the abstract]: similarity of the rendered code to the target, 0 if rendering fails, plus a
    format reward. Rendering and comparison belong to a reward plugin.

    Formula: rendered similarity + weight format
    """
    return _sum((1.0, gate(similarity, rendered[None])), (weight, passed_all(format_passed[None])))


@recipe("refcritic", "reward")
def refcritic(verdict: Tensor, before: Tensor, after: Tensor, *, weight: float) -> Tensor:
    """RefCritic (arXiv:2507.15024) [derived]: correctness of the verdict plus the gain of the refinement.

    Formula: verdict + weight (after - before)

    ``before`` and ``after`` are accuracies of the answer without and with the critique.
    """
    return _sum((1.0, verdict), (weight, as_float(after) - as_float(before)))


@recipe("listener", "reward", weights=(1.0, 0.5, 0.5))
def listener(
    format_passed: Tensor, correct: Tensor, confidence: Tensor, *, weights: tuple[float, float, float]
) -> Tensor:
    """Listener reward (arXiv:2506.22832): format, accuracy, and a frozen listener's probability of the correct choice
    after the reasoning [second-hand, weights unsure].

    Formula: w_0 format + w_1 correct + w_2 confidence
    """
    check_probability(confidence=as_float(confidence).nan_to_num(nan=0.5))
    flags = (passed_all(format_passed[None]), passed_all(correct[None]))
    return _sum(*zip(weights, (*flags, confidence), strict=True))


@recipe("debate-reward", "reward")
def debate_reward(environment: Tensor, verdict: Tensor, swapped: Tensor, *, weight: float) -> Tensor:
    """Debate reward (arXiv:2402.15826) [derived]: the reward mixed with a verdict against a baseline.

    Formula: (1 - weight) r + weight J, J = (verdict - swapped) / 2

    Args:
        environment: ``r``.
        verdict: in [-1, 1], for the sample, in the order (sample, baseline).
        swapped: the verdict for the baseline, in the order (baseline, sample).
        weight: in [0, 1]; swept in the paper.
    """
    check_probability(weight=weight)
    half = (as_float(verdict) - as_float(swapped)) / 2
    return _sum((1 - weight, environment), (weight, half))


@recipe("lpo-gui", "reward")
def lpo_gui(entropy: Tensor, distance: Tensor, matched: Tensor, *, max_entropy: float, limit: float) -> Tensor:
    """LPO (arXiv:2506.09373) [second-hand]: information of the selected window, times closeness to the target.

    Formula: matched entropy / max_entropy prod_p max(0, 1 - distance_p / limit)

    ``entropy / max_entropy * max(0, 1 - distance / limit)``, 0 if the action's type is wrong. On images use the
    distance of a box from its target position.

    Args:
        entropy: grey-level entropy of the selected window, in [0, max_entropy].
        distance: ``(..., P)``, of each of P points from its target, NaN in padding.
        matched: 1 if the type of action is correct, 0 if not, or NaN.
        max_entropy: largest entropy of the image's windows.
        limit: smallest distance of reward 0.
    """
    check_positive(max_entropy=max_entropy)
    close = gate(distance_decay(distance, limit=limit).nanmean(-1), matched[None])
    check_same_shape(entropy=entropy, close=close)
    return product(torch.stack([as_float(entropy) / max_entropy, close]))
