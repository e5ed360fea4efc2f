"""MADPO: DPO with a weight per pair from the margin of a frozen reward model."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from diffalign.losses.common import as_float, check_not_negative
from diffalign.losses.recipes.preference import dpo
from diffalign.losses.recipes.registry import recipe


def margin_gain(rm_margin: Tensor, *, tau: float, c_min: float = 0.5, c_max: float = 2.0, lam: float = 1.0) -> Tensor:
    """Return MADPO's factor of the implicit margin, ``c_min + (c_max - c_min) / (1 + k exp(lam (|h| - tau)))``.

    With ``k = (c_max - 1) / (1 - c_min)`` it is 1 at ``|h| = tau``, below ``c_max`` everywhere and ``c_min`` in the
    limit. Arguments as in :func:`margin_adaptive_weight`; returns ``(B,)``, detached.
    """
    check_not_negative(tau=tau, lam=lam)
    if not 0 < c_min < 1 < c_max:
        raise ValueError(f"c_min must be in (0, 1) and c_max above 1, got {c_min} and {c_max}")
    distance = as_float(rm_margin.detach()).abs() - tau
    odds = math.log((c_max - 1) / (1 - c_min))
    return c_min + (c_max - c_min) * torch.sigmoid(-(lam * distance + odds))


def margin_adaptive_weight(
    rm_margin: Tensor, *, tau: float, c_min: float = 0.5, c_max: float = 2.0, lam: float = 1.0
) -> Tensor:
    """Return MADPO's weight of a pair, ``sigmoid(c h) / sigmoid(h)`` where ``h > -tau``, else 1 (arXiv:2510.05342).

    ``c`` is :func:`margin_gain`. If labels follow Bradley-Terry with margin h, the weighted logistic loss has its
    optimum at ``c h``, but only for ``|h| < tau``: beyond, the swapped orientation has weight 1, and the optimum is
    ``log sigmoid(c h) - log sigmoid(-h)``, close to h. Hence tau = log 999, as in the released notebook; the released
    class has 2.

    Args:
        rm_margin: ``(B,)`` reward of the winner minus that of the loser by a frozen model, with its sign; detached.
        tau: margin at which the factor is 1, >= 0.
        c_min: factor of large margins, in (0, 1).
        c_max: bound of the factor of small ones, > 1.
        lam: steepness, >= 0; 0 gives weight 1 everywhere.

    Returns:
        ``(B,)`` detached.

    Raises:
        ValueError: a setting is out of its range.
    """
    h = as_float(rm_margin.detach())
    gain = margin_gain(h, tau=tau, c_min=c_min, c_max=c_max, lam=lam)
    weight = (F.logsigmoid(gain * h) - F.logsigmoid(h)).exp()
    return torch.where(h > -tau, weight, torch.ones_like(h))


@recipe("madpo", "pair", beta=0.1, tau=math.log(999), c_min=0.5, c_max=2.0, lam=1.0)
def madpo(r_w: Tensor, r_l: Tensor, rm_margin: Tensor, *, beta: float, **weight: float) -> Tensor:
    """MADPO (arXiv:2510.05342): DPO with a weight per pair from the margin ``(B,)`` of a frozen reward model.

    Formula: -w log sigmoid(beta (r_w - r_l)), w = sigmoid(c h) / sigmoid(h) where h > -tau, else 1, c falling from
    c_max to c_min with |h|

    ``weight`` are the settings of :func:`diffalign.losses.recipes.madpo.margin_adaptive_weight`.
    """
    return margin_adaptive_weight(rm_margin, **weight) * dpo(r_w, r_l, beta=beta)
