"""Rewards from a model's probabilities: of its answers, and of given texts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def yes_probability(logits: Tensor, yes: Sequence[int], no: Sequence[int] | None) -> Tensor:
    """Probability of an answer "yes", the spellings of each side summed, `(B,)`.

    Args:
        logits: `(B, V)` logits or log-probabilities of the next token.
        yes: Token ids of the spellings of "yes".
        no: Those of "no": p(yes) / (p(yes) + p(no)). None: p(yes) among all tokens.

    Raises:
        ValueError: If a side is empty or an id stands on both.
    """
    if not yes or (no is not None and (not no or set(yes) & set(no))):
        raise ValueError(f"each side needs token ids of its own, got {list(yes)} and {no and list(no)}")
    favour = logits[:, list(yes)].logsumexp(1)
    if no is None:
        return (favour - logits.logsumexp(1)).exp()
    return (favour - logits[:, list(no)].logsumexp(1)).sigmoid()


def expected_grade(logits: Tensor, grades: Sequence[Sequence[int]]) -> Tensor:
    """Mean grade among the grades alone, divided by the highest: sum_i i p_i / (n - 1), `(B,)` in [0, 1].

    With the tokens "0" to "5" the reward of Edit-R1 (UniWorld-V2, arXiv 2510.16888, the form of PKU-YuanGroup/Edit-R1).

    Args:
        logits: `(B, V)` logits or log-probabilities of the next token.
        grades: Token ids of the spellings of grade 0, 1, ..., n - 1.

    Raises:
        ValueError: If there are fewer than two grades or one has no token.
    """
    if len(grades) < 2 or not all(grades):
        raise ValueError(f"grades need at least two entries with token ids each, got {[list(g) for g in grades]}")
    each = torch.stack([logits[:, list(ids)].logsumexp(1) for ids in grades], 1)
    steps = torch.arange(len(grades), dtype=each.dtype, device=each.device)
    return (each.softmax(1) * steps).sum(1) / (len(grades) - 1)


def likelihood_contrast(positive: Tensor, negative: Tensor) -> Tensor:
    """Mean log-likelihood of continuations of a satisfied reader minus that of a dissatisfied one, `(B,)`.

    FLR (arXiv 2409.13948). NaN entries (a follow-up that could not be scored) leave their mean.

    Args:
        positive: `(B, P)` log-probabilities of positive follow-ups under a frozen model.
        negative: `(B, N)` of negative ones.
    """
    return positive.nanmean(1) - negative.nanmean(1)


def sensitivity_weighted(log_prob: Tensor, masked: Tensor, *, power: float = 1.0) -> Tensor:
    """Likelihood of a reference answer, its tokens weighted by how much they depend on what was generated, `(G,)`.

    sum_j w(s_j) [log p(y_j | c_i) - log p(y_j | masked)], s_j the population deviation of token j over the group and
    w(s) = s^power. R3 of DRO (arXiv 2506.13351); the paper's w grows with s, its exact form is not settled.

    Args:
        log_prob: `(G, T)` log-probabilities of the T tokens of the reference, given each member of the group. On
            images T is patches or questions.
        masked: `(T,)` given nothing.
        power: Exponent of w.

    Raises:
        ValueError: If the shapes do not fit.
    """
    if log_prob.ndim != 2 or masked.shape != log_prob.shape[1:]:
        raise ValueError(f"expected (G, T) and (T,), got {tuple(log_prob.shape)} and {tuple(masked.shape)}")
    weights = log_prob.detach().std(0, correction=0) ** power
    return (weights * (log_prob - masked)).sum(1)


def contrast_bonus(with_action: Tensor, without_action: Tensor, *, margin: float) -> Tensor:
    """+1 where an optional action has helped the group, -1 where it has hurt, 0 within the margin, `(B,)`.

    GCPO: the sign of mean r(with) - mean r(without) beyond epsilon. No value of epsilon is published, so there is no
    default. NaN rewards leave their mean.

    Args:
        with_action: `(B, P)` rewards of the samples that took the action.
        without_action: `(B, Q)` of those that did not.
        margin: epsilon >= 0, in units of the reward.

    Raises:
        ValueError: If the margin is negative.
    """
    if margin < 0:
        raise ValueError(f"margin must not be negative, got {margin}")
    gap = with_action.nanmean(1) - without_action.nanmean(1)
    return torch.where(gap.abs() > margin, gap.sign(), torch.zeros_like(gap))
