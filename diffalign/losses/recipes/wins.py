"""Scores from comparisons within a group, ``(B, G)``. See :mod:`diffalign.losses.wins`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from diffalign.losses import wins
from diffalign.losses.common import scored
from diffalign.losses.recipes.registry import recipe
from diffalign.losses.reward_shaping import logit_winrate


@recipe("spo-minimax", "reward")
def spo_minimax(matrix: Tensor) -> Tensor:
    """SPO (arXiv:2401.04056): a sample's reward is its win rate against the others of its group.

    Formula: mean_{j != i} P(i beats j)

    ``matrix`` ``(B, G, G)`` from a pairwise judge, or :func:`~diffalign.losses.wins.indicator` of a reward. Without a
    reward model, also for intransitive preferences. The paper also compares with a queue of recent samples.
    """
    return wins.mean_wins(matrix)


@recipe("pairwise-rl", "reward")
def pairwise_rl(verdicts: Tensor, anchor: Tensor) -> Tensor:
    """Pairwise-RL (arXiv:2504.04950) [derived]: win probability against an anchor, both orders averaged.

    Formula: (P_i,anchor + 1 - P_anchor,i) / 2

    The logit (:func:`~diffalign.losses.reward_shaping.logit_winrate`) and the choice of anchor (the ground truth, or a
    reference sample put into the group) are unconfirmed.

    Args:
        verdicts: ``(B, G, G)``, probability of i, shown first, against j; NaN where the judge's answer failed.
        anchor: ``(B,)``, index of the anchor in its group.
    """
    return wins.anchor_wins(wins.both_orders(verdicts), anchor)


def pairwise_rl_logit(verdicts: Tensor, anchor: Tensor, *, eps: float = 1e-6) -> Tensor:
    """:func:`pairwise_rl` as an unbounded reward, ``logit P``; the anchor has 0."""
    return logit_winrate(pairwise_rl(verdicts, anchor), eps=eps)


@recipe("heron", "reward")
def heron(factors: Tensor, *, coefs: Sequence[float] | None = None) -> Tensor:
    """HERON (arXiv:2309.02632; its code): win matrix of ranked factors; the first factor that separates two samples
    decides.

    Formula: 1[f_i > f_j] of the first factor with |f_i - f_j| > c std f, 1/2 if none

    A factor decides if the samples differ by more than ``c_k`` of its standard deviations, 0 by default; without one
    1/2, and the paper drops the pair. (In the code the third and later factors use the second's margin; here each has
    its own.) The matrix ``(B, G, G)`` labels pairs of a Bradley-Terry reward model, or is scored by ``wins.mean_wins``.

    Args:
        factors: ``(K, B, G)``, the most important first, for example alignment, then aesthetics.
        coefs: K numbers >= 0. The unbiased std is over this batch [ours].
    """
    coefs = [0.0] * len(factors) if coefs is None else coefs
    pairs = zip(factors, coefs, strict=True)
    margins = [c * float(f[scored(f)].double().std()) if c else 0.0 for f, c in pairs]
    return wins.lexicographic(factors, margins=margins)


@recipe("lcpo", "reward")
def lcpo(votes: Tensor) -> Tensor:
    """LCPO (arXiv:2405.14758) [rule checked, its use as a reward derived]: reward plugins ``(K, B, G)`` as voters.

    Formula: sum_j 1[majority prefers i to j] + 1/2 for ties

    One point per sample beaten by majority, 1/2 per tie. The paper's linear program with Pareto constraints is not
    included.
    """
    return wins.copeland(wins.majority(votes))


@recipe("llama-berry", "reward")
def llama_berry(verdicts: Tensor) -> Tensor:
    """LLaMA-Berry's Enhanced Borda Count (arXiv:2410.02884; paper): transitive closure of verdicts, then quantiles.

    Formula: 1 - (rank - 1) / (G - 1), rank by Borda count of the transitive closure of 1[P >= 1/2]

    ``verdicts`` ``(B, G, G)`` of a pairwise judge. Tree search is not included.
    """
    return wins.closure_wins(verdicts)


@recipe("think-rm", "reward", eps=1e-6)
def think_rm(differences: Tensor, *, eps: float) -> Tensor:
    """Think-RM (arXiv:2505.16265; its code): a group's advantages from pairwise differences, ``(B, G)``; G = 4.

    Formula: mean_j D_ij / sqrt(sum D**2 / (2 G (G - 1)) + eps)

    ``differences`` ``(B, G, G)`` antisymmetric, a judge's -3 to 3, NaN where it failed. Training the judge is not
    included.
    """
    return wins.difference_advantage(differences, eps=eps)
