"""Rewards per token or denoising step, ``(B, T)``: four terms that are added, then passed to GAE or summed over steps.

``r_t = -kl log_ratio_t + clamp(coef step_t) + gamma Phi_(t+1) - Phi_t + 1[t = last] clamp(terminal)``

All have one shape, ``(values, mask, *, ...) -> (B, T)``, fp32 (fp64 kept), detached: a reward has no gradient, and the
KL in a reward acts through the advantage only. ``mask (B, T)`` is 1 where there is a step; other steps become 0 for any
value there. NaN in a valid step stays NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.common import as_float, check_not_negative, check_positive, keep


def _bound(x: Tensor, clip: float) -> Tensor:
    if not clip > 0:
        raise ValueError(f"clip must be positive (inf for none), got {clip}")
    return x.clamp(-clip, clip)


def _steps(mask: Tensor) -> Tensor:
    if mask.ndim != 2:
        raise ValueError(f"mask must have shape (B, T), got {tuple(mask.shape)}")
    return mask.bool()


def terminal_reward(terminal: Tensor, mask: Tensor, *, clip: float = torch.inf) -> Tensor:
    """Return ``terminal`` ``(B,)``, clamped to ``[-clip, clip]``, at the last valid step of each row and 0 elsewhere.

    Raises:
        ValueError: a shape does not fit, or ``clip`` is not positive.
    """
    mask = _steps(mask)
    if terminal.shape != mask.shape[:1]:
        raise ValueError(f"terminal must have shape ({len(mask)},), got {tuple(terminal.shape)}")
    last = mask & (mask.flip(1).cumsum(1).flip(1) == 1)
    reward = _bound(as_float(terminal.detach()), clip)
    return keep(reward[:, None].expand(mask.shape), last)


def step_reward(step: Tensor, mask: Tensor, *, coef: float = 1.0, clip: float = torch.inf) -> Tensor:
    """Return ``coef * step`` clamped to ``[-clip, clip]``, clipped *after* scaling (RTO, its code).

    Args:
        step: ``(B, T)``: the log-ratio of a DPO-trained model against its reference (RTO), a critic's spans (DRLC,
            Text2Grad), a reward per step.
        mask: ``(B, T)``, 1 where there is a step.
        coef: scale; unclipped, the sum over steps is ``coef`` times the implicit reward of the sample.
        clip: bound of each step.

    Raises:
        ValueError: a shape does not fit, or ``clip`` is not positive.
    """
    return _bound(coef * keep(step.detach(), _steps(mask)), clip)


def kl_reward(log_ratio: Tensor, mask: Tensor, *, coef: float) -> Tensor:
    """Return ``-coef * log_ratio`` ``(B, T)``, whose mean on the policy's own samples is ``-coef * KL(policy || ref)``.

    Raises:
        ValueError: ``coef`` is negative, or a shape does not fit.
    """
    check_not_negative(coef=coef)
    return -coef * keep(log_ratio.detach(), _steps(mask))


def potential_reward(potential: Tensor, mask: Tensor, *, gamma: float = 1.0) -> Tensor:
    """Return ``gamma * Phi_(t+1) - Phi_t``, potential-based shaping, which does not change the optimal policy.

    The discounted sum over a row of T steps is ``gamma**T Phi_T - Phi_0``: it depends on the end points only. With
    ``gamma = 1`` and ``Phi_T = 0`` samples with the same start keep their order. On images ``Phi(x_t)`` is the reward
    of the preview ``x0_hat`` at step t.

    Args:
        potential: ``(B, T + 1)``, of the states before each step and after the last.
        mask: ``(B, T)``, 1 where there is a step; the valid steps of a row come first.
        gamma: discount, in (0, 1].

    Raises:
        ValueError: ``gamma`` is outside (0, 1], or a shape does not fit.
    """
    check_positive(gamma=gamma)
    mask = _steps(mask)
    if gamma > 1 or potential.shape != (mask.shape[0], mask.shape[1] + 1):
        raise ValueError(
            f"expected gamma <= 1 and a potential of shape (B, T + 1) for a mask {tuple(mask.shape)}, "
            f"got {gamma} and {tuple(potential.shape)}"
        )
    phi = as_float(potential.detach())
    return keep(gamma * phi[:, 1:] - phi[:, :-1], mask)
