"""OREAL: imitation of correct samples, with token weights from a model that predicts the outcome."""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.advantages import group_advantage, loo_center, no_scale
from diffalign.losses.common import as_float, check_mask, check_same_shape, expand_rows, keep
from diffalign.losses.policy import ratio, reinforce
from diffalign.losses.recipes.registry import recipe
from diffalign.losses.regularizers import k3


def running_mean(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean of the valid scores up to and with each position, ``(B, T)``; 0 at masked positions."""
    if scores.ndim != 2:
        raise ValueError(f"scores must have shape (B, T), got {tuple(scores.shape)}")
    valid = check_mask(scores, mask)
    valid = torch.ones_like(scores, dtype=torch.bool) if valid is None else valid
    total = keep(scores, valid).cumsum(1)
    return keep(total / valid.cumsum(1).clamp(min=1), valid)


def outcome_weights(scores: Tensor, positive: Tensor, *, threshold: float = 0.5, mask: Tensor | None = None) -> Tensor:
    """Return ``clamp((p - threshold) / (1 - threshold), 0, 1)``, ``(B, T)``, detached, with p the predicted probability
    of the sample's outcome at that token.

    OREAL (arXiv:2502.06781, InternLM/OREAL train_oreal.py): ``p = sigmoid(running mean of the scores)`` for a positive
    sample and one minus that for a negative one. A token with p = 1/2 has weight 0.

    Args:
        scores: ``(B, T)``, output of the token model.
        positive: ``(B,)`` bool, outcome of each sample.
        threshold: in [0, 1).
        mask: ``(B, T)``.

    Raises:
        ValueError: a shape does not fit, or the threshold is out of range.
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold must be in [0, 1), got {threshold}")
    logits = running_mean(as_float(scores.detach()), mask)
    check_same_shape(samples=scores[:, 0], positive=positive)
    p = torch.where(positive.bool()[:, None], logits, -logits).sigmoid()
    return keep(((p - threshold) / (1 - threshold)).relu(), mask)


@recipe("oreal", "off_policy", negative=0.5, kl_coef=0.01)
def oreal(
    logp: Tensor,
    ref: Tensor,
    adv: Tensor,
    positive: Tensor,
    token_scores: Tensor | None,
    *,
    negative: float,
    kl_coef: float,
    mask: Tensor | None = None,
) -> Tensor:
    """OREAL (arXiv:2502.06781, InternLM/OREAL train_oreal.py): imitation of correct samples and REINFORCE on wrong
    ones, with token weights.

    Formula: -sum A w logp / N_pos + negative (-sum A w rho) / N_neg + kl_coef k3, w = clamp(2 p_t - 1, 0, 1)

    Weighted so that the plain sum is the loss: positives over the number of their tokens, negatives over that of theirs
    times ``negative``, plus k3 over the number of all. The ratio of negatives is to the policy itself, of value 1.
    Advantages: :func:`oreal_advantage`. Prompts with equal outcomes are dropped before, and one positive and one
    negative sample of each other prompt are kept.

    Args:
        logp: ``(B, T)``, under the policy.
        ref: ``(B, T)``, under the reference.
        adv: ``(B,)``.
        positive: ``(B,)`` bool, outcome.
        token_scores: ``(B, T)`` of the token model; None gives every token weight 1.
        negative: weight of the negatives.
        kl_coef: weight of k3.
        mask: ``(B, T)``.
    """
    logp, valid = keep(logp, mask), expand_rows(torch.ones_like(positive).bool(), logp) if mask is None else mask.bool()
    weight = 1.0 if token_scores is None else outcome_weights(token_scores, positive, mask=mask)
    good = expand_rows(positive.bool(), logp)
    adv = expand_rows(as_float(adv), logp) * weight
    imitate = reinforce(logp, adv, mask=mask) / (good & valid).sum().clamp(min=1)
    push = negative * ratio(logp - logp.detach(), adv, mask=mask) / (~good & valid).sum().clamp(min=1)
    penalty = keep(k3(logp - keep(ref.detach(), mask)), mask) / valid.sum().clamp(min=1)
    return torch.where(good, imitate, push) + kl_coef * penalty


def oreal_advantage(rewards: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Return OREAL's advantages, leave-one-out without a scale, ``(B, G)``; groups of 16."""
    return group_advantage(rewards, center=loo_center, scale=no_scale, mask=mask)
