"""Policy gradient on pairs: two samples of one prompt and the difference of their rewards (P3O).

Three surrogates of one shape, ``(log_ratio (B, 2), gap (B,), *, ...) -> (B,)``, unreduced fp32, to be minimised:

- ``log_ratio``: log-prob of the policy minus log-prob at rollout; the only input with a gradient.
- ``gap``: from :func:`reward_gap`, detached here.

At rollout all three have the gradient of leave-one-out REINFORCE with G = 2, averaged over the two samples; a baseline
per prompt cancels. Swapping the samples of a pair changes nothing. Per step: pass rows ``(B * T, 2)`` with a gap per
step, and average over steps.

Some reviews print the gradient of ``log(p_1 p_2)``, which has expectation zero; correct is ``p_1 / p_2``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffalign.losses.common import as_float, check_floating, check_not_negative, check_positive, check_same_shape
from diffalign.losses.policy import clip


def reward_gap(
    rewards: Tensor, *, kl_log_ratio: Tensor | None = None, kl_coef: float = 0.01, scale: float | Tensor | None = None
) -> Tensor:
    """Return ``R_0 - R_1 - kl_coef (r_0 - r_1)``, over ``scale`` if given; ``(B,)``, detached.

    Args:
        rewards: ``(B, 2)``.
        kl_log_ratio: ``(B, 2)``, log-ratios to the reference; None for no penalty.
        kl_coef: its weight (.01 in the original trainer).
        scale: > 0, for example a running standard deviation.

    Raises:
        ValueError: a shape does not fit, ``kl_coef`` is negative or ``scale`` not positive.
    """
    if rewards.ndim != 2 or rewards.shape[1] != 2:
        raise ValueError(f"rewards must have shape (B, 2), got {tuple(rewards.shape)}")
    check_not_negative(kl_coef=kl_coef)
    value = as_float(rewards.detach())
    if kl_log_ratio is not None:
        check_same_shape(rewards=rewards, kl_log_ratio=kl_log_ratio)
        value = value - kl_coef * as_float(kl_log_ratio.detach())
    if scale is not None:
        check_positive(scale=scale)
        value = value / scale
    return value[:, 0] - value[:, 1]


def _inputs(log_ratio: Tensor, gap: Tensor) -> tuple[Tensor, Tensor]:
    check_floating(log_ratio=log_ratio)
    if log_ratio.ndim != 2 or log_ratio.shape[1] != 2 or gap.shape != log_ratio.shape[:1]:
        raise ValueError(f"expected log_ratio (B, 2) and gap (B,), got {tuple(log_ratio.shape)} and {tuple(gap.shape)}")
    return as_float(log_ratio), as_float(gap.detach())


def _weighted_gap(x: Tensor, gap: Tensor, cap: float) -> Tensor:
    """``gap`` times the pair's importance weight ``exp(x_0 + x_1)``, clamped to ``[1/cap, cap]`` and detached."""
    if not cap >= 1:
        raise ValueError(f"cap bounds a ratio and its inverse: it must be >= 1, got {cap}")
    bound = math.log(cap)
    return gap * x.detach().sum(1).clamp(-bound, bound).exp()


def pair_plain(log_ratio: Tensor, gap: Tensor, *, cap: float = 10.0) -> Tensor:
    """Return ``-q c (x_0 - x_1) / 2`` without a clip; ``c`` as in :func:`pair_joint`."""
    x, gap = _inputs(log_ratio, gap)
    return -_weighted_gap(x, gap, cap) * (x[:, 0] - x[:, 1]) / 2


def pair_joint(log_ratio: Tensor, gap: Tensor, *, eps: float = 0.2, cap: float = 10.0) -> Tensor:
    """Return ``max(-q c d, -q c clamp(d, -eps, eps)) / 2`` with ``d = x_0 - x_1`` (P3O, arXiv:2310.00212, second
    version, the form of its trainer).

    Args:
        log_ratio: ``(B, 2)``.
        gap: ``(B,)``, q.
        eps: clip range of ``d``, in log units.
        cap: the detached weight ``c = exp(x_0 + x_1)`` stays in ``[1/cap, cap]``.

    Raises:
        ValueError: a shape does not fit, ``eps`` is negative or ``cap`` below 1.
    """
    check_not_negative(eps=eps)
    x, gap = _inputs(log_ratio, gap)
    pull, d = _weighted_gap(x, gap, cap), x[:, 0] - x[:, 1]
    return torch.maximum(-pull * d, -pull * d.clamp(-eps, eps)) / 2


def pair_separate(log_ratio: Tensor, gap: Tensor, *, eps: float = 0.2) -> Tensor:
    """Return PPO's clip of each sample with advantages ``q / 2`` and ``-q / 2``, added (P3O, first version)."""
    x, gap = _inputs(log_ratio, gap)
    return clip(x, torch.stack([gap, -gap], 1) / 2, eps_low=eps).sum(1)
