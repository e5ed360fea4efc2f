"""Metrics of ratios and pairs to log. All detached."""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.common import check_same_shape, expand_rows, keep, masked_mean
from diffalign.losses.regularizers import k3


def policy_metrics(
    log_ratio: Tensor, adv: Tensor, *, mask: Tensor | None = None, eps_low: float, eps_high: float | None = None
) -> dict[str, Tensor]:
    """Summarise importance ratios as detached scalars (0-d tensors, so that logging does not stall a device).

    Keys: ``ratio_mean``, ``ratio_std`` (population), ``clip_frac_high`` and ``clip_frac_low`` (share of valid entries
        whose
    gradient the clip removes: ratio above ``1 + eps_high`` with A > 0, below ``1 - eps_low`` with A < 0),
    ``log_ratio_abs_mean``, ``log_ratio_abs_max``, ``approx_kl`` (k3 of the old policy against the new one) and ``ess``
    (effective sample size over the number of samples, in (0, 1]).

    Mean-reduced latent log-ratios have the mean ``-rho**2 / 2`` with rho the shift in noise units, so their upper
    clip rarely fires; ``clip_frac_high`` far below ``clip_frac_low`` is the symptom.

    Args:
        log_ratio: ``(B,)`` or ``(B, T)``, log-prob of the policy minus log-prob at rollout.
        adv: ``(B,)``, ``(B, 1)`` or ``(B, T)``.
        mask: shape of ``log_ratio``, 1 where valid. With nothing valid every value is 0.
        eps_low: lower clip range.
        eps_high: upper clip range, default ``eps_low``.
    """
    x = keep(log_ratio.detach(), mask)
    adv = keep(expand_rows(adv, log_ratio), mask)
    ratio = x.clamp(-20, 20).exp()
    mean = masked_mean(ratio, mask)
    high = (ratio > 1 + (eps_low if eps_high is None else eps_high)) & (adv > 0)
    low = (ratio < 1 - eps_low) & (adv < 0)
    square = masked_mean(ratio**2, mask)
    return {
        "ratio_mean": mean,
        "ratio_std": masked_mean((ratio - mean) ** 2, mask).sqrt(),
        "clip_frac_high": masked_mean(high, mask),
        "clip_frac_low": masked_mean(low, mask),
        "log_ratio_abs_mean": masked_mean(x.abs(), mask),
        "log_ratio_abs_max": x.abs().max(),
        "approx_kl": masked_mean(k3(-x), mask),
        "ess": mean**2 / square.clamp(min=torch.finfo(square.dtype).tiny),
    }


def preference_metrics(
    score_w: Tensor, score_l: Tensor, *, beta: float = 1.0, margin: float = 0.0, mask: Tensor | None = None
) -> dict[str, Tensor]:
    """Summarise pairs as detached scalars (0-d tensors, fp32, fp64 kept).

    Keys: ``accuracy`` (share of pairs with ``h = score_w - score_l > 0``, ties counting half), ``score_w_mean``,
    ``score_l_mean``, ``gap_mean`` (of h), ``z_mean`` (of ``z = beta h - margin``) and ``prob_mean`` (of sigmoid(z)).

    At the first step policy and reference are equal: accuracy is 1/2 here and in diffusers' script, 0 where ties do not
    count. Log both means: both denoising errors can rise while the gap grows.

    Args:
        score_w: ``(B,)`` or ``(B, T)``, scores of the winners.
        score_l: same shape, scores of the losers.
        beta: as in the loss.
        margin: as in the loss.
        mask: same shape, 1 where valid. With nothing valid every value is 0.

    Raises:
        ValueError: shapes differ.
    """
    check_same_shape(score_w=score_w, score_l=score_l)
    winner, loser = keep(score_w.detach(), mask), keep(score_l.detach(), mask)
    gap = winner - loser
    z = beta * gap - margin
    return {
        "accuracy": masked_mean((gap.sign() + 1) / 2, mask),
        "score_w_mean": masked_mean(winner, mask),
        "score_l_mean": masked_mean(loser, mask),
        "gap_mean": masked_mean(gap, mask),
        "z_mean": masked_mean(z, mask),
        "prob_mean": masked_mean(z.sigmoid(), mask),
    }
