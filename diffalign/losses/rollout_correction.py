"""Weights and masks for the mismatch of sampler and trainer, and for stale samples.

``log_ratio (B, T)`` is the log-prob of the training policy minus that of the sampler, detached. Weights multiply a
policy loss, masks are bool and are combined with its ``mask``. No gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.common import (
    check_floating,
    check_positive,
    check_probability,
    check_same_shape,
    expand_rows,
    keep,
    masked_mean,
    row_mean,
)
from diffalign.losses.policy_objectives import bounded_ratio


def _sequence_sum(log_ratio: Tensor, mask: Tensor | None) -> Tensor:
    return keep(log_ratio.detach(), mask).sum(1, keepdim=True).expand_as(log_ratio)


def _bounded(weight: Tensor, upper: float, lower: float | None, mask: Tensor | None) -> Tensor:
    check_positive(upper=upper)
    inside = torch.ones_like(weight, dtype=torch.bool) if lower is None else (weight >= lower) & (weight <= upper)
    return keep(keep(weight.clamp(max=upper), inside), mask)


def token_weights(
    log_ratio: Tensor, *, upper: float = 2.0, lower: float | None = None, mask: Tensor | None = None
) -> Tensor:
    """Return ``min(exp(x), upper)`` per token, ``(B, T)`` (truncated importance sampling; verl's ``rollout_is:
    token``).

    Formula: min(exp(x), upper); with lower: exp(x) inside [lower, upper], else 0

    With ``lower`` a token outside ``[lower, upper]`` has weight 0 instead (IcePop). Biased, low variance.

    Raises:
        ValueError: ``upper`` is not positive, or a shape does not fit.
    """
    check_floating(log_ratio=log_ratio)
    return _bounded(bounded_ratio(keep(log_ratio.detach(), mask)), upper, lower, mask)


def sequence_weights(
    log_ratio: Tensor, *, upper: float = 2.0, lower: float | None = None, mask: Tensor | None = None
) -> Tensor:
    """Return ``min(exp(sum_t x_t), upper)`` for every token of a row, ``(B, T)`` (``rollout_is: sequence``): unbiased
    before the truncation, high variance. ``lower`` as in :func:`token_weights`.
    """
    check_floating(log_ratio=log_ratio)
    return _bounded(bounded_ratio(_sequence_sum(log_ratio, mask)), upper, lower, mask)


def unit_mean(weights: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Return weights over their mean of all valid tokens (``rollout_is_batch_normalize``); unchanged if that is 0."""
    mean = masked_mean(weights, mask)
    return weights / torch.where(mean > 1e-8, mean, torch.ones_like(mean))


def within_ratio(log_ratio: Tensor, *, lower: float, upper: float, mask: Tensor | None = None) -> Tensor:
    """Return tokens whose ratio ``exp(-x)`` lies in ``[lower, upper]``, ``(B, T)`` bool (verl's ``token_k1``).

    For ``seq_sum_k1`` and ``seq_mean_k1`` pass the row's sum or mean, expanded, as ``log_ratio``.

    Raises:
        ValueError: not ``0 < lower <= upper``, or a shape does not fit.
    """
    check_positive(lower=lower)
    if not lower <= upper:
        raise ValueError(f"lower must not exceed upper, got {lower} and {upper}")
    ratio = bounded_ratio(-keep(log_ratio, mask))
    inside = (ratio >= lower) & (ratio <= upper)
    return inside if mask is None else inside & mask.bool()


def off_policy_sequence_mask(log_ratio: Tensor, adv: Tensor, *, threshold: float, mask: Tensor | None = None) -> Tensor:
    """Return sequences to train on, expanded to ``(B, T)`` bool: those of A >= 0, and the others while ``mean_t(-x_t)
    <= threshold`` (DeepSeek-V3.2, arXiv:2512.02556, equation 9; TRL's ``off_policy_mask_threshold``).

    Formula: keep where A >= 0 or mean_t(-x_t) <= threshold

    Args:
        log_ratio: ``(B, T)``; NaN where the sampler has no log-prob.
        adv: ``(B,)``, ``(B, 1)`` or ``(B, T)``.
        threshold: largest mean KL estimate of a sequence of A < 0, > 0, for example 0.5.
        mask: ``(B, T)``.

    Raises:
        ValueError: the threshold is not positive, or a shape does not fit.
    """
    check_positive(threshold=threshold)
    kl = row_mean(-log_ratio.nan_to_num(nan=0.0), mask)[:, None]
    kept = (expand_rows(adv, log_ratio) >= 0) | (kl <= threshold)
    return kept if mask is None else kept & mask.bool()


def top_entropy_mask(entropy: Tensor, *, share: float = 0.2, mask: Tensor | None = None) -> Tensor:
    """Return the ``share`` of valid tokens with the highest entropy, ``(B, T)`` bool ("beyond the 80/20 rule",
    arXiv:2506.01939; TRL's ``top_entropy_quantile``).

    Formula: keep where H >= its quantile 1 - share over the batch

    The threshold is the quantile ``1 - share`` over the batch; a token at the threshold is kept. ``share = 1`` keeps
    all.

    Raises:
        ValueError: ``share`` is outside [0, 1], or a shape does not fit.
    """
    check_floating(entropy=entropy)
    check_probability(share=share)
    valid = torch.ones_like(entropy, dtype=torch.bool) if mask is None else mask.bool()
    check_same_shape(entropy=entropy, mask=valid)
    values = keep(entropy, valid)
    if not valid.any():
        return valid
    return valid & (values >= values[valid].quantile(1 - share))
