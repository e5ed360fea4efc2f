"""Generalised advantage estimation."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from diffalign.losses.common import check_mask, check_probability, check_same_shape, keep


class Gae(NamedTuple):
    """Advantages, and returns (advantage + value, the target of the value head), each ``(B, T)`` without gradient."""

    advantages: Tensor
    returns: Tensor


def gae(
    rewards: Tensor,
    values: Tensor,
    *,
    mask: Tensor | None = None,
    gamma: float = 1.0,
    lam: float = 0.95,
    bootstrap: Tensor | None = None,
) -> Gae:
    """Return ``A_t = delta_t + gamma lam A_{t+1}`` with ``delta_t = r_t + gamma V_{t+1} - V_t``.

    ``lam = 1`` is the Monte-Carlo return minus the value, ``lam = 0`` the one-step error. Masked steps, at the end or
    in between, are skipped.

    Args:
        rewards: ``(B, T)``, detached.
        values: ``(B, T)``, value before each step, detached.
        mask: ``(B, T)``, 1 where the step is valid.
        gamma: discount in [0, 1].
        lam: in [0, 1].
        bootstrap: ``(B,)``, value after the last valid step. None: 0, for finished rows. For truncated rows
            :func:`last_value` (T-PPO's EGAE) or a critic's value.

    Raises:
        ValueError: a shape does not fit, or a setting is outside [0, 1].
    """
    check_same_shape(rewards=rewards, values=values)
    check_probability(gamma=gamma, lam=lam)
    valid = _steps(rewards, mask)
    rewards, values = keep(rewards.detach(), valid), keep(values.detach(), valid)
    after = torch.zeros_like(values[:, 0]) if bootstrap is None else keep(bootstrap.detach())
    check_same_shape(rows=values[:, 0], bootstrap=after)
    ahead, out = torch.zeros_like(after), []
    for t in reversed(range(values.shape[1])):
        adv = rewards[:, t] + gamma * after - values[:, t] + gamma * lam * ahead
        ahead = torch.where(valid[:, t], adv, ahead)
        after = torch.where(valid[:, t], values[:, t], after)
        out.append(keep(adv, valid[:, t]))
    adv = torch.stack(out[::-1], 1)
    return Gae(adv, adv + values)


def last_value(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the value at each row's last valid step, ``(B,)``, detached; 0 for a row without one.

    As the bootstrap of a truncated row it makes the last error ``r + (gamma - 1) V``, just ``r`` at gamma 1: EGAE of
    T-PPO (arXiv:2506.15050).
    """
    valid = _steps(values, mask)
    step = torch.arange(1, values.shape[1] + 1, device=values.device)
    last = (valid * step).amax(1)
    picked = keep(values.detach(), valid).gather(1, (last - 1).clamp(min=0)[:, None])[:, 0]
    return keep(picked, last > 0)


def _steps(x: Tensor, mask: Tensor | None) -> Tensor:
    """Mask as bool, all True if there is none."""
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"expected a tensor of shape (B, T) with at least one step, got {tuple(x.shape)}")
    valid = check_mask(x, mask)
    return torch.ones_like(x, dtype=torch.bool) if valid is None else valid
