"""Selection within a group ``(B, G)`` of samples of one prompt, and losses on the selected samples.

Selections are detached; losses have the gradient of their inputs, and are 0 for a group without a selected sample.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from diffalign.losses import pair_selection, resampling, selection
from diffalign.losses.common import as_float, check_probability, check_same_shape, keep
from diffalign.losses.preference import hinge, logistic, pair_margin
from diffalign.losses.recipes.registry import recipe
from diffalign.losses.selection import Selection


@recipe("superhf", "selection", kl_coef=0.0)
def superhf(rewards: Tensor, nll: Tensor, kl: Tensor, *, kl_coef: float, spread_coef: float = 0.0) -> Tensor:
    """SuperHF (arXiv:2310.16763), the form of the code: fine-tuning on the best of n, ``(B,)``.

    Formula: nll + kl_coef relu(kl) + spread_coef / nll of the sample with the largest reward

    ``nll + kl_coef relu(kl) + spread_coef / nll`` of the best sample; the last term raises the entropy. n 32,
    temperature 1, top-p .95, learning rate 1e-5. ``kl_coef`` is 0 in the class, up to 0.4 in the paper's sweep.

    Args:
        rewards: ``(B, n)``.
        nll: ``(B, n)`` negative log-likelihood or denoising error, > 0 if ``spread_coef`` is not 0.
        kl: ``(B, n)`` forward KL(base || policy), e.g. ``diffusion.gaussian_kl``.
        kl_coef: weight of the KL.
        spread_coef: weight of ``1 / nll``.
    """
    check_same_shape(rewards=rewards, nll=nll, kl=kl)
    index, weight = selection.best(rewards)
    nll, kl = (as_float(x).gather(1, index)[:, 0] for x in (nll, kl))
    loss = nll + kl_coef * kl.relu()
    return keep(loss + spread_coef / nll if spread_coef else loss, weight[:, 0])


@recipe("rso", "selection", n=8, temperature=0.5, beta=0.05)
def rso(
    rewards: Tensor, log_ratio: Tensor, *, generator: torch.Generator, n: int, temperature: float, beta: float
) -> Tensor:
    """RSO (arXiv:2309.06657): rejection sampling towards the tilted policy, then hinge-norm pairs, ``(B, n / 2)``.

    Formula: accept with probability exp((R - R_max) / temperature); relu(1 - beta (r_w - r_l)) on accepted pairs

    Accepted samples are paired in the order of acceptance and labelled by reward (first-round ranking); ties and empty
    slots have the loss 0. 64 samples to 8 in the paper. ``logistic`` in place of ``hinge`` is the sigmoid-norm form.

    Args:
        rewards: ``(B, G)``.
        log_ratio: ``(B, G)``.
        generator: source of randomness.
        n: accepted samples, even.
        temperature: beta of the rejection.
        beta: gamma of the loss.
    """
    check_same_shape(rewards=rewards, log_ratio=log_ratio)
    if n % 2:
        raise ValueError(f"n must be even, to make pairs, got {n}")
    index, weight = resampling.rejection(rewards, n=n, beta=temperature, generator=generator)
    r, x = (values.gather(1, index).unflatten(1, (-1, 2)) for values in (as_float(rewards), as_float(log_ratio)))
    order = (r[..., 0] - r[..., 1]).sign()
    filled = (weight.unflatten(1, (-1, 2)).sum(2) == 2) & (order != 0)
    return keep(hinge(order * pair_margin(x[..., 0], x[..., 1], beta=beta)), filled)


@recipe("unified-reward", "selection")
def unified_reward(scores: Tensor, wins: Tensor, *, mask: Tensor | None = None) -> Selection:
    """UnifiedReward (arXiv:2503.05236): pairwise ranking, then the best winner against the worst loser by point score;
    arguments as in :func:`~diffalign.losses.selection.rank_then_point`.

    Formula: best point score among those that win a pairwise comparison, worst among those that lose one
    """
    return selection.rank_then_point(scores, wins, mask=mask)


@recipe("anyprefer", "selection")
def anyprefer(scores: Tensor, *, mask: Tensor | None = None) -> Selection:
    """Anyprefer (arXiv:2504.19276) [derived]: best and worst of a model's own samples by judge scores ``(B, G)``; equal
    scores make no pair.

    Formula: argmax and argmin of the scores
    """
    return selection.best_worst(scores, mask=mask)


class Pairs(NamedTuple):
    """``indices (B, 2)``, winner first, and ``keep (B,)`` bool."""

    indices: Tensor
    keep: Tensor


@recipe("rlp", "selection")
def rlp(rewards: Tensor, *, keep: int) -> Pairs:
    """Reward learning on policy (arXiv:2403.19279) [derived], its synthetic preferences: pairs of best and worst
    sample, from the prompts with the largest reward gap, to retrain the reward model.

    Formula: the `keep` largest max_g R - min_g R

    Args:
        rewards: ``(B, G)`` of the policy's samples under the current model.
        keep: number of pairs.
    """
    index, weight = selection.best_worst(rewards)
    r = as_float(rewards).gather(1, index)
    gap = torch.where(weight.all(1), r[:, 0] - r[:, 1], torch.nan)
    return Pairs(index, pair_selection.large_margin(gap, keep=keep))


@recipe("west-of-n", "selection")
def west_of_n(rewards: Tensor, *, confidence: float = 0.5, mask: Tensor | None = None) -> Selection:
    """West-of-N (arXiv:2401.12086): best and worst of N samples (about 64, unsure) as a pair for the reward model.

    Formula: argmax and argmin of R, kept where sigmoid(R_max - R_min) > confidence

    Args:
        rewards: ``(B, N)`` of a Bradley-Terry model.
        confidence: in (0, 1), pairs with ``sigmoid(gap)`` of at most this are dropped; 1/2 drops ties only.
        mask: ``(B, N)``.
    """
    check_probability(confidence=confidence, open_ends=True)
    return selection.best_worst(rewards, gap=math.log(confidence / (1 - confidence)), mask=mask)


@recipe("implicit-po", "selection")
def implicit_po(yes_logits: Tensor, no_logits: Tensor, log_ratio: Tensor, *, beta: float = 0.1) -> Tensor:
    """Implicit preference optimisation (arXiv:2502.16182) [derived]: own samples ranked by the judge's P(yes), then DPO
    on best against worst, ``(B,)``. For images use a vision-language judge. Beta of DPO.

    Formula: -log sigmoid(beta (r_best - r_worst)), ranked by sigmoid(yes - no)

    Args:
        yes_logits: ``(B, G)`` of the answer yes to "is this good?".
        no_logits: ``(B, G)`` of no.
        log_ratio: ``(B, G)``.
        beta: of DPO.
    """
    check_same_shape(yes_logits=yes_logits, no_logits=no_logits)
    return critic_v(as_float(yes_logits) - as_float(no_logits), log_ratio, beta=beta)


@recipe("self-consuming", "selection", temperature=1.0)
def self_consuming(rewards: Tensor, *, generator: torch.Generator, temperature: float) -> Selection:
    """Curated retraining (arXiv:2407.09499): one of K samples is added to the next training set, besides a share of
    real data.

    Formula: sample k with probability softmax(R / temperature)_k

    Args:
        rewards: ``(B, K)``.
        generator: source of randomness.
        temperature: 1 in the paper.
    """
    return resampling.softmax(rewards, temperature=temperature, generator=generator)


@recipe("pf-ppo", "selection")
def pf_ppo(rewards: Tensor, *, mask: Tensor | None = None) -> Selection:
    """Policy filtration (arXiv:2409.06957), the code's default BW: trains on the best and the worst sample of each
    prompt.

    Formula: argmax and argmin of R in each group

    Groups of equal rewards are kept. The BR form is :func:`~diffalign.losses.resampling.best_random`, 0.4 and 0.1. The
    port in verl takes the extremes of the whole batch.

    Args:
        rewards: ``(B, G)``.
        mask: ``(B, G)``.
    """
    return selection.best_worst(rewards, gap=-math.inf, mask=mask)


@recipe("critic-v", "selection")
def critic_v(rewards: Tensor, log_ratio: Tensor, *, beta: float = 0.1) -> Tensor:
    """Critic-V (arXiv:2411.18203): DPO on the best against the worst of a group by rule-based rewards, ``(B,)``; 0 for
    ties.

    Formula: -log sigmoid(beta (r_best - r_worst))

    Args:
        rewards: ``(B, G)`` by rules; rubric scores for images.
        log_ratio: ``(B, G)``.
        beta: of DPO.
    """
    check_same_shape(rewards=rewards, log_ratio=log_ratio)
    index, weight = selection.best_worst(rewards)
    pair = as_float(log_ratio).gather(1, index)
    return keep(logistic(pair_margin(pair[:, 0], pair[:, 1], beta=beta)), weight.all(1))
