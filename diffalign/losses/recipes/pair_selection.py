"""Selection of pairs to label or train on. Masks over N pairs unless stated otherwise; all detached."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from diffalign.losses import exploration, pair_selection
from diffalign.losses.common import as_float, check_positive, check_probability, check_same_shape
from diffalign.losses.ranking import pareto_rank
from diffalign.losses.recipes.registry import recipe


class Labelled(NamedTuple):
    """``keep (N,)`` bool, and ``label (N,)``: probability that the first of the pair is preferred."""

    keep: Tensor
    label: Tensor


@recipe("mixed-po", "selection")
def mixed_po(margins: Tensor, *, threshold: float) -> Tensor:
    """Mixed preference optimisation (arXiv:2403.19443) [derived]: the easy pairs, ``(N,)`` bool.

    Formula: |margin| > threshold

    DPO on these first; then policy gradient on the prompts of the others, with the DPO model as reference. The
    threshold is set per reward model.

    Args:
        margins: ``(N,)`` reward of the winner minus that of the loser.
        threshold: of ``|margin|``.
    """
    return pair_selection.above_margin(margins, threshold=threshold)


@recipe("magicid", "selection", keep=100)
def magicid(points: Tensor, identity: Tensor, *, keep: int) -> Tensor:
    """MagicID's pair builder (arXiv:2503.12689), second-hand: ``(P, 2)`` indices, winner first, P <= ``keep``.

    Formula: the `keep` pairs (i, j) with front(i) < front(j) of largest identity_i - identity_j

    Each sample of an upper Pareto front beats each sample of a lower one; of these pairs, those with the largest gap in
    identity similarity.

    Args:
        points: ``(N, K)`` rewards, identity and dynamics there.
        identity: ``(N,)``.
        keep: number of pairs.
    """
    check_positive(keep=keep)
    rank = pareto_rank(points).rank
    if identity.shape != rank.shape:
        raise ValueError(f"identity must have shape {tuple(rank.shape)}, got {tuple(identity.shape)}")
    pairs = (rank[:, None] < rank[None]).nonzero()
    gap = identity[pairs[:, 0]] - identity[pairs[:, 1]]
    return pairs[gap.argsort(descending=True, stable=True)[:keep]]


@recipe("regime", "selection", ridge=1.0)
def regime(first: Tensor, second: Tensor, *, n: int, ridge: float) -> Tensor:
    """REGIME (arXiv:2305.18505): pairs that cover the feature space, selected before labelling, ``(n,)`` indices.

    Formula: greedy argmax of x' (ridge I + sum_chosen x x')^-1 x, x = first - second

    Args:
        first: ``(N, D)`` features of the first of each candidate pair.
        second: ``(N, D)``.
        n: pairs to label.
        ridge: information at the start.
    """
    check_same_shape(first=first, second=second)
    difference = as_float(first) - as_float(second)
    return exploration.cover(difference, n=n, gram=exploration.start_gram(difference.shape[1], ridge=ridge))[0]


@recipe("dueling-rl", "selection")
def dueling_rl(first: Tensor, second: Tensor, near_optimal: Tensor, *, gram: Tensor) -> Tensor:
    """Dueling RL (arXiv:2111.04850): the next pair to label, a 0-d index: the most uncertain near-optimal pair.

    Formula: argmax over near-optimal pairs of x' gram^-1 x, x = first - second

    Args:
        first: ``(N, D)`` features.
        second: ``(N, D)``.
        near_optimal: ``(N,)`` bool, neither of the pair is ruled out as best.
        gram: ``(D, D)`` of the pairs so far.
    """
    check_same_shape(first=first, second=second)
    value = exploration.elliptical(as_float(first) - as_float(second), gram)
    check_same_shape(near_optimal=near_optimal, value=value)
    if not bool(near_optimal.any()):
        raise ValueError("no pair is near-optimal")
    return torch.where(near_optimal.bool(), value, -math.inf).argmax()


@recipe("ae-borda", "selection", beta=0.1, u=2.0)
def ae_borda(passes: Tensor, reference: Tensor, *, keep: int, beta: float, u: float) -> Tensor:
    """AE-Borda (arXiv:2312.00267): the prompts with the most uncertain best Borda score, ``(B,)`` bool.

    Formula: the `keep` largest of max_a (m + u s)(a) - max_a (m - u s)(a), m and s of the Borda score over dropout
    passes

    The first of the pair to label is ``exploration.ucb_gap(...).first``, the second a random other candidate. Borda
    scores are over the prompt's candidates.

    Args:
        passes: ``(S, B, A)`` log-probs of A candidates under S >= 2 dropout passes.
        reference: ``(B, A)`` reference log-probs.
        keep: prompts to label.
        beta: of DPO.
        u: width in standard deviations (unbiased ones).
    """
    if passes.ndim != 3 or passes.shape[0] < 2 or passes.shape[1:] != reference.shape:
        raise ValueError(
            f"need passes (S, B, A) with S >= 2 and reference (B, A), got {tuple(passes.shape)} and "
            f"{tuple(reference.shape)}"
        )
    check_positive(beta=beta)
    score = beta * (as_float(passes).mean(0) - as_float(reference))
    return pair_selection.largest(exploration.ucb_gap(score, beta * as_float(passes).std(0), u=u).gap, keep=keep)


@recipe("small-margin-pairs", "selection")
def small_margin_pairs(log_ratio_1: Tensor, log_ratio_2: Tensor, *, keep: int) -> Tensor:
    """Annotation-efficient pairs (arXiv:2406.17312): label the pairs with the smallest implicit margin, ``(N,)`` bool,
    for any beta; more labels in early rounds. Log-ratios ``(N,)``.

    Formula: the `keep` smallest |r_1 - r_2|
    """
    check_same_shape(log_ratio_1=log_ratio_1, log_ratio_2=log_ratio_2)
    return pair_selection.small_margin(as_float(log_ratio_1) - as_float(log_ratio_2), keep=keep)


@recipe("skywork-reward-v2", "selection")
def skywork_reward_v2(margins: Tensor, gold: Tensor) -> Labelled:
    """Skywork-Reward-V2's second stage (arXiv:2507.01352), partly unsure: keep the pairs on which the current best and
    the gold reward model agree, and label them: 1 as given, 0 swapped.

    Formula: keep where sign(margin) = sign(gold); label 1[margin > 0]

    Args:
        margins: ``(N,)`` chosen minus rejected, as given, under the current best model.
        gold: ``(N,)`` under the gold model.
    """
    return Labelled(pair_selection.agree(margins, gold), as_float(gold > 0))


@recipe("crm-collaborative", "selection")
def crm_collaborative(losses_a: Tensor, losses_b: Tensor, *, share: float) -> tuple[Tensor, Tensor]:
    """Collaborative reward modelling (arXiv:2505.10597) [derived]: each model trains on the ``share`` of pairs with the
    smallest loss of the *other*; masks for a and for b. The schedule of the share is not confirmed.

    Formula: each model keeps the `share` of pairs with the smallest loss of the other

    Args:
        losses_a: ``(N,)`` of model a.
        losses_b: ``(N,)`` of model b.
        share: in (0, 1), rounded up to whole pairs.
    """
    check_probability(share=share, open_ends=True)
    return pair_selection.cross_small_loss(losses_a, losses_b, keep=math.ceil(share * len(losses_a)))


@recipe("self-ref-feedback", "selection")
def self_ref_feedback(forward: Tensor, backward: Tensor) -> Labelled:
    """Self-reference feedback [derived from the abstract]: pairs with the same verdict in both orders; the label is the
    mean strength.

    Formula: keep where sign(forward) = sign(backward); label sigmoid((forward + backward) / 2)

    Args:
        forward: ``(N,)`` margin of the first over the second, first shown first.
        backward: ``(N,)`` the same margin, second shown first.
    """
    return Labelled(
        pair_selection.agree(forward, backward), ((as_float(forward) + as_float(backward)) / 2).sigmoid().detach()
    )
