"""Combination of different rewards: ``(rewards (K, ...), weights, ...) -> (...)``, unreduced fp32 (fp64 kept).

- ``rewards``: K first, then any axes, ``(K, B)`` or ``(K, B, G)``. With gradient.
- ``weights``: K numbers, or a tensor ``(K,)`` or ``(K, ...)`` that broadcasts (weights that differ per prompt);
  detached. A reward of weight 0 (logged only) is ignored and may be NaN.

A sample with a NaN or infinite value in a reward of non-zero weight gets NaN, so that later means leave it out.
Ensemble members of one reward, where the others suffice: ``reward_ensembles``.

These combine rewards before normalisation; for sums of normalised rewards see ``multi_reward``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffalign.losses.common import as_float, check_not_negative, keep, readable

Weights = Sequence[float] | Tensor


def stacked(rewards: Tensor) -> Tensor:
    """Return ``rewards`` ``(K, ...)`` in fp32 (fp64 kept).

    Raises:
        ValueError: there is no first axis, or it is empty.
    """
    if rewards.ndim == 0 or rewards.shape[0] == 0:
        raise ValueError(
            f"rewards must be stacked K first, (K, ...) with K >= 1, got {tuple(rewards.shape)}; use torch.stack"
        )
    return as_float(rewards)


def _spread(values: Weights, rewards: Tensor, name: str) -> Tensor:
    """K numbers, or a tensor that broadcasts, in the shape of ``rewards`` ``(K, ...)``; detached."""
    given = torch.as_tensor(values, dtype=rewards.dtype, device=rewards.device).detach()
    shaped = given.reshape(-1, *[1] * (rewards.ndim - 1)) if given.ndim == 1 else given
    same = (k in (1, n) for k, n in zip(shaped.shape[1:], rewards.shape[1:], strict=False))
    if shaped.ndim != rewards.ndim or shaped.shape[0] != rewards.shape[0] or not all(same):
        raise ValueError(f"{name} of shape {tuple(given.shape)} do not fit rewards of shape {tuple(rewards.shape)}")
    return shaped.expand_as(rewards)


def _weighted(rewards: Tensor, weights: Weights) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards with ignored and invalid entries set to 0, weights, and where all weighted rewards are valid."""
    rewards = stacked(rewards)
    w = _spread(weights, rewards, "weights")
    if readable(w) and not (w.isfinite().all() and w.any()):
        raise ValueError(f"weights must be finite and at least one not 0, got {weights}")
    usable = rewards.isfinite()
    return torch.where(usable & (w != 0), rewards, torch.zeros_like(rewards)), w, (usable | (w == 0)).all(0)


def _or_nan(value: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole, value, torch.full_like(value, torch.nan))


def weighted_sum(rewards: Tensor, weights: Weights) -> Tensor:
    """Return ``sum_k w_k r_k``. Weights may be negative.

    Raises:
        ValueError: weights do not fit, are not finite, or are all 0.
    """
    rewards, w, whole = _weighted(rewards, weights)
    return _or_nan((w * rewards).sum(0), whole)


def product(rewards: Tensor) -> Tensor:
    """Return ``prod_k r_k``: 0 if one is 0 (LPO, arXiv:2506.09373)."""
    usable = stacked(rewards).isfinite()
    return _or_nan(keep(rewards, usable).prod(0), usable.all(0))


def harmonic(rewards: Tensor, weights: Weights, *, eps: float = 1e-8) -> Tensor:
    """Return ``1 / sum_k w_k / (r_k + eps)``, dominated by the smallest reward (RPO, arXiv:2407.12164; weights .3 and
    .7).

    Raises:
        ValueError: a weight or a counted reward is negative (the value would be unbounded), or weights do not fit.
    """
    rewards, w, whole = _weighted(rewards, weights)
    check_not_negative(weights=w, rewards=rewards)
    return _or_nan(1 / (w / (rewards + eps)).sum(0), whole)


def log_sum(rewards: Tensor, weights: Weights, *, eps: float = 1e-8) -> Tensor:
    """Return ``sum_k w_k log r_k``, the log of the weighted product (MOGFN, arXiv:2210.12765).

    Rewards below ``eps`` count as ``eps``, without gradient.

    Raises:
        ValueError: a counted reward is negative, or weights do not fit.
    """
    rewards, w, whole = _weighted(rewards, weights)
    check_not_negative(rewards=rewards)
    return _or_nan((w * rewards.clamp(min=eps).log()).sum(0), whole)


def tchebycheff(rewards: Tensor, weights: Weights, *, ideal: Weights | None = None) -> Tensor:
    """Return ``min_k w_k (r_k - z_k)`` over the rewards of weight above 0: weights reach every point of a Pareto front.

    Args:
        rewards: ``(K, ...)``.
        weights: K numbers or a tensor, not negative.
        ideal: ``z``, K numbers or a tensor as for weights, the best value of each reward; 0 by default.

    Raises:
        ValueError: a weight is negative, or a shape does not fit.
    """
    rewards, w, whole = _weighted(rewards, weights)
    check_not_negative(weights=w)
    best = torch.zeros_like(rewards) if ideal is None else _spread(ideal, rewards, "ideal values")
    return _or_nan(torch.where(w > 0, w * (rewards - best), torch.inf).amin(0), whole)


def gate(reward: Tensor, passed: Tensor, *, floor: float = 0.0) -> Tensor:
    """Return ``reward`` where all checks passed, else ``floor``. A group that fails as a whole has no advantage.

    Args:
        reward: ``(...)``. It may be NaN where a check failed.
        passed: ``(C, ...)``, C checks: bool, or 1, 0 and NaN for a check that was not evaluated. Any failed check gives
            ``floor``; otherwise a NaN gives NaN.
        floor: value of a failure.

    Raises:
        ValueError: the shapes do not fit, or a check is neither 0 nor 1.
    """
    verdict = passed_all(passed)
    if verdict.shape != reward.shape:
        raise ValueError(
            f"checks must have shape (C, ...) over a reward {tuple(reward.shape)}, got {tuple(passed.shape)}"
        )
    reward = as_float(reward)
    closed = torch.where(verdict == 0, torch.full_like(reward, floor), torch.full_like(reward, torch.nan))
    return torch.where(verdict == 1, reward, closed)


def passed_all(passed: Tensor) -> Tensor:
    """Return 1 where all of C checks ``(C, ...)`` passed, 0 where one failed, otherwise NaN where one is NaN.

    Raises:
        ValueError: a check is neither 0, 1 nor NaN.
    """
    passed = stacked(passed.detach())
    known = passed.nan_to_num(nan=1.0)
    if readable(known) and not ((known == 0) | (known == 1)).all():
        raise ValueError("a check is True or False (1 or 0, NaN if not made): compare a score with a threshold first")
    return torch.where((known == 1).all(0), passed.amin(0), torch.zeros_like(passed[0]))


def tiers(passed: Tensor, values: Sequence[float]) -> Tensor:
    """Return ``values[n]`` with n the number of leading checks passed: tiered rewards.

    Args:
        passed: ``(C, ...)`` as for :func:`gate`, the first check first. A NaN below the first failure gives NaN.
        values: C + 1 numbers, for 0 to C checks passed.

    Raises:
        ValueError: the number of values is not C + 1, or a check is neither 0 nor 1.
    """
    if len(values) != len(stacked(passed)) + 1:
        raise ValueError(f"{len(passed)} checks have {len(passed) + 1} tiers, got {len(values)} values")
    reached = torch.stack([passed_all(passed[: n + 1]) for n in range(len(passed))])
    steps = torch.tensor(values, dtype=reached.dtype, device=reached.device).diff()
    return values[0] + (steps.reshape(-1, *[1] * (reached.ndim - 1)) * reached).sum(0)
