"""Value, quantile and rating heads of published methods. Unreduced: one loss per item and head."""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses import value
from diffalign.losses.common import as_float, check_same_shape
from diffalign.losses.rating import matched_boundaries, rating_loss, unit_range
from diffalign.losses.recipes.registry import recipe


@recipe("itakura-saito", "value")
def itakura_saito(pred: Tensor, target: Tensor, *, alpha: float) -> Tensor:
    """Risk-averse critic (arXiv:2505.16925): a value head for the certainty equivalent. Alpha is set per task; ``alpha
    = -1 / beta`` is a head for ``beta log Z`` [derived]. Shapes as in :func:`~diffalign.losses.value.itakura_saito`.

    Formula: (exp(alpha e) - alpha e - 1) / alpha**2, e = pred - target; optimum -log E exp(-alpha target) / alpha
    """
    return value.itakura_saito(pred, target, alpha=alpha)


@recipe("orchestrated-value", "value")
def orchestrated_value(
    mapped: Tensor, target: Tensor, *, scale: float = 1.0, shift: float = 1.0, rate: float = 0.1
) -> Tensor:
    """Orchestrated value mapping (arXiv:2203.07171): regression of ``mapped = c log(v + d)`` in two rates.

    Formula: (mapped - scale log(u + shift))**2 / 2, u = v + rate (target - v), v = exp(mapped / scale) - shift

    First a step of ``rate`` in the space of values, ``u = v + rate (target - v)``, then ``mse(mapped, c log(u + d))``
    with the optimiser's own rate. Direct regression on mapped targets would learn a mean of logarithms (Jensen). One
    channel per part of the reward, for example positive and negative part; the value is ``sum_j w_j (exp(mapped_j / c)
    - d)``. Scale, shift and rate are set per task; the defaults are ours.

    Args:
        mapped: any shape, prediction in the mapped space, e.g. ``(J, B)``.
        target: same shape, in units of value, > -d.
        scale: c.
        shift: d.
        rate: in (0, 1].
    """
    check_same_shape(mapped=mapped, target=target)
    now = (as_float(mapped) / scale).exp() - shift
    moved = now + rate * (as_float(target) - now)
    if not bool((moved + shift > 0).all()):
        raise ValueError(f"targets must be > -shift = {-shift}; raise shift or split the reward into channels")
    return value.mse(mapped, scale * (moved + shift).log())


@recipe("rbrl", "value", k=30.0)
def rbrl(scores: Tensor, labels: Tensor, *, classes: int, k: float) -> Tensor:
    """Rating-based reinforcement learning (arXiv:2307.16348), the form of the code: cross-entropy of star ratings,
    ``(B,)``. Train an ensemble of 3.

    Formula: cross-entropy of logits -k (s - b_i)(s - b_{i+1}), s = scores in [0, 1], b = boundaries that match the
    class counts

    Args:
        scores: ``(B,)`` of the reward model; scaled to [0, 1] within the batch.
        labels: ``(B,)`` integers in 0..classes-1.
        classes: number of grades.
        k: sharpness.
    """
    r = unit_range(scores)
    return rating_loss(r, labels, matched_boundaries(r, labels.bincount(minlength=classes)), k=k)


@recipe("qrm", "value")
def qrm(quantiles: Tensor, target: Tensor, *, levels: Tensor | None = None) -> Tensor:
    """QRM (arXiv:2409.10164): quantile regression of a score, ``(B, Q)``. The reward is the mean, or the mean of the
    lower quantiles (``value.lower_mean``). 19 evenly spaced levels (unsure).

    Formula: max(level (y - q), (level - 1) (y - q))

    Args:
        quantiles: ``(B, Q)``.
        target: ``(B,)``.
        levels: ``(Q,)`` in (0, 1), default ``1/(Q+1) ... Q/(Q+1)``.
    """
    if quantiles.ndim != 2 or target.shape != quantiles.shape[:1]:
        raise ValueError(f"need quantiles (B, Q) and target (B,), got {tuple(quantiles.shape)}, {tuple(target.shape)}")
    count = quantiles.shape[1]
    if levels is None:
        levels = torch.arange(1, count + 1, device=quantiles.device) / (count + 1)
    return value.pinball(quantiles, target[:, None], level=levels.to(as_float(quantiles)))


@recipe("hra", "value")
def hra(values: Tensor, rewards: Tensor, next_values: Tensor, weights: Tensor, *, gamma: float = 1.0) -> Tensor:
    """Hybrid reward architecture (arXiv:1706.04208): one value head per reward, ``(K, B)``.

    Formula: w_k (r_k + gamma sg V_k' - V_k)**2 / 2

    ``w_k (r_k + gamma sg V_k' - V_k)**2 / 2``; the total value is the sum of the heads. Centred advantages of the heads
    sum to that of the summed reward, but not after division by each head's std. No discount by default [ours].

    Args:
        values: ``(K, B)``.
        rewards: ``(K, B)``.
        next_values: ``(K, B)`` of the next states, 0 after the end.
        weights: ``(K,)``.
        gamma: discount.
    """
    check_same_shape(values=values, rewards=rewards, next_values=next_values)
    if values.ndim != 2 or weights.shape != values.shape[:1]:
        raise ValueError(f"need values (K, B) and K weights, got {tuple(values.shape)} and {tuple(weights.shape)}")
    target = as_float(rewards) + gamma * as_float(next_values)
    return as_float(weights.detach())[:, None] * value.mse(values, target)
