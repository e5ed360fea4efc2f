"""Advantages reshaped by the policy's entropy at each step (EMPG, and HAPO of heterogeneous tokens).

The entropy of a sampler with a fixed sigma is the same at every sample: these are then weights per timestep. Use them
with a learned variance, or with an ensemble's disagreement as entropy.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.common import (
    as_float,
    check_any_valid,
    check_mask,
    check_not_negative,
    check_same_shape,
    expand_rows,
    keep,
)


def _valid(entropy: Tensor, mask: Tensor | None) -> Tensor:
    if entropy.ndim != 2:
        raise ValueError(f"entropies must have shape (B, T), got {tuple(entropy.shape)}")
    check_any_valid(mask)
    valid = check_mask(entropy, mask)
    return torch.ones_like(entropy, dtype=torch.bool) if valid is None else valid


def unit_entropy(entropy: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Return entropies mapped to [0, 1] by the smallest and largest valid one of the batch, ``(B, T)``, detached; 0
    where all are equal.
    """
    valid, entropy = _valid(entropy, mask), as_float(entropy.detach())
    low, high = entropy[valid].min(), entropy[valid].max()
    return keep((entropy - low) / (high - low).clamp(min=torch.finfo(entropy.dtype).tiny), valid)


def confidence_gain(entropy: Tensor, *, k: float = 1.0, mask: Tensor | None = None) -> Tensor:
    """Return ``exp(-k Hn) / mean exp(-k Hn)``, ``(B, T)``: the factor of a step's advantage, 1 on average (EMPG,
    arXiv:2509.09265). Confident steps weigh more. 0 at masked steps.
    """
    check_not_negative(k=k)
    valid = _valid(entropy, mask)
    weight = (-k * unit_entropy(entropy, mask=mask)).exp()
    return keep(weight / weight[valid].mean(), valid)


def clarity_bonus(entropy: Tensor, *, k: float = 1.0, mask: Tensor | None = None) -> Tensor:
    """Return ``exp(-k Hn)`` of the *next* valid step, ``(B, T)``: a bonus for steps before a confident one. 0 at the
    last valid step and at masked ones (EMPG).
    """
    check_not_negative(k=k)
    valid = _valid(entropy, mask)
    clear = (-k * unit_entropy(entropy, mask=mask)).exp()
    ahead, out = clear.new_zeros(len(clear)), []
    for t in reversed(range(clear.shape[1])):
        out.append(keep(ahead, valid[:, t]))
        ahead = torch.where(valid[:, t], clear[:, t], ahead)
    return torch.stack(out[::-1], 1)


def entropy_level(entropy: Tensor, *, quantile: float = 0.8, mask: Tensor | None = None, floor: float = 1e-8) -> Tensor:
    """Return log-entropy minus its quantile, each side scaled to reach +-1, ``(B, T)`` in [-1, 1], detached (HAPO).

    The released code divides the lower side by its negative minimum, so that no level is below 0; this function divides
    by its absolute value.

    Args:
        entropy: ``(B, T)``, >= 0.
        quantile: quantile that maps to 0 (.8; the nearest value, no interpolation).
        mask: ``(B, T)``.
        floor: smallest entropy, before the logarithm.
    """
    if not 0 <= quantile <= 1:
        raise ValueError(f"quantile must be in [0, 1], got {quantile}")
    valid = _valid(entropy, mask)
    log = as_float(entropy.detach()).clamp(min=floor).log()
    ranked = log[valid].sort().values
    away = keep(log - ranked[round(quantile * (len(ranked) - 1))], valid)
    high, low = away.amax(), -away.amin()
    one = torch.ones_like(high)
    return away / torch.where(away > 0, torch.where(high > 0, high, one), torch.where(low > 0, low, one))


def redistribute(
    adv: Tensor,
    log_ratio: Tensor,
    level: Tensor,
    *,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
    strength: float = 1.0,
) -> Tensor:
    """Return ``A (1 + strength h)`` where it applies and A elsewhere, ``(B, T)``, detached (HAPO).

    It applies to tokens of high entropy (h > 0) with a ratio outside ``(1 - eps_low / 2, 1 + eps_high / 2)``, and to
    those of low entropy with a ratio inside.

    Args:
        adv: ``(B,)``, ``(B, 1)`` or ``(B, T)``.
        log_ratio: ``(B, T)``, to the policy at rollout.
        level: ``(B, T)``, h, from :func:`entropy_level`.
        eps_low: clip range below.
        eps_high: clip range above.
        strength: weight of h.
    """
    check_not_negative(eps_low=eps_low, eps_high=eps_high, strength=strength)
    check_same_shape(log_ratio=log_ratio, level=level)
    adv, level = expand_rows(as_float(adv.detach()), level), as_float(level.detach())
    rho = as_float(log_ratio).exp()
    inside = (rho > 1 - eps_low / 2) & (rho < 1 + eps_high / 2)
    return torch.where((level > 0) ^ inside, adv * (1 + strength * level), adv)


def adaptive_range(
    level: Tensor, *, eps_low: float = 0.2, eps_high: float = 0.2, strength: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return clip ranges per token, lower and upper, each like ``level``, for :func:`diffalign.losses.policy.clip`.

    Low entropy widens the lower side to ``eps_low (1 - strength h)``, high entropy the upper one to ``eps_high (1 +
    strength h)``; neither side shrinks (HAPO).
    """
    check_not_negative(eps_low=eps_low, eps_high=eps_high, strength=strength)
    level = as_float(level.detach())
    return eps_low * (1 + strength * (-level).relu()), eps_high * (1 + strength * level.relu())
