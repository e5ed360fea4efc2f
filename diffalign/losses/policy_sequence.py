"""Policy objectives with one ratio for a whole sequence of tokens or denoising steps.

Shape and conventions: :mod:`diffalign.losses.policy_objectives`. Every valid token of a row has the row's loss, so
``masked_seq_mean`` of the result is the mean over sequences and ``masked_seq_sum`` weights each by its length (LUSPO).
``log_ratio (B,)`` is a sequence of one step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.common import check_not_negative, keep, row_mean
from diffalign.losses.policy import clip
from diffalign.losses.policy_objectives import objective_inputs, policy_objective


def _row(x: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the valid entries of each row, in the shape of ``x``."""
    return row_mean(x, mask)[:, None].expand_as(x) if x.ndim == 2 else x


@policy_objective
def sequence_clip(
    log_ratio: Tensor,
    adv: Tensor,
    *,
    eps_low: float = 0.2,
    eps_high: float | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Return PPO's clip on ``exp(sum_t x_t)``, the ratio of whole sequences (RLOO's trainer in TRL).

    Formula: max(-A s, -A clip(s, 1 - eps_low, 1 + eps_high)), s = exp(sum_t x_t)

    Raises:
        ValueError: a range is negative, or a shape does not fit.
    """
    x, adv = objective_inputs(log_ratio, adv, mask)
    total = x.sum(1, keepdim=True).expand_as(x) if x.ndim == 2 else x
    return clip(total, adv, eps_low=eps_low, eps_high=eps_high, mask=mask)


@policy_objective
def gspo(
    log_ratio: Tensor,
    adv: Tensor,
    *,
    eps_low: float = 3e-4,
    eps_high: float | None = 4e-4,
    mask: Tensor | None = None,
) -> Tensor:
    """Return PPO's clip on ``exp(mean_t x_t)``, the geometric mean of a sequence's ratios (GSPO, arXiv:2507.18071).

    Formula: max(-A s, -A clip(s, 1 - eps_low, 1 + eps_high)), s = exp(mean_t x_t)

    The mean over tokens makes ratios close to 1, hence the small clip range. A denoising trajectory is a sequence.

    Raises:
        ValueError: a range is negative, or a shape does not fit.
    """
    x, adv = objective_inputs(log_ratio, adv, mask)
    return clip(_row(x, mask), adv, eps_low=eps_low, eps_high=eps_high, mask=mask)


@policy_objective
def gspo_token(
    log_ratio: Tensor,
    adv: Tensor,
    *,
    eps_low: float = 3e-4,
    eps_high: float | None = 4e-4,
    mask: Tensor | None = None,
) -> Tensor:
    """Return :func:`gspo` with a gradient per token, ``log s_t = sg(mean x) + x_t - sg(x_t)`` (GSPO-token; verl's).

    Formula: max(-A s_t, -A clip(s_t, 1 - eps_low, 1 + eps_high)), log s_t = sg(mean_t x) + x_t - sg(x_t)

    With one advantage per row, value and gradient are those of :func:`gspo`; advantages may differ between tokens.

    Raises:
        ValueError: a range is negative, or a shape does not fit.
    """
    x, adv = objective_inputs(log_ratio, adv, mask)
    return clip(_row(x, mask).detach() + x - x.detach(), adv, eps_low=eps_low, eps_high=eps_high, mask=mask)


@policy_objective
def gmpo(
    log_ratio: Tensor, adv: Tensor, *, eps_low: float = 0.4, eps_high: float = 0.4, mask: Tensor | None = None
) -> Tensor:
    """Return ``-A exp(mean_t y_t)``: the geometric mean of clipped token ratios (GMPO, arXiv:2507.20673; verl's
    ``geo_mean``).

    Formula: -A exp(mean_t y_t), y = min(x, eps_high) where A > 0, max(x, -eps_low) where A < 0

    ``y_t = min(x_t, eps_high)`` where A > 0 and ``max(x_t, -eps_low)`` where A < 0: the clip of each token is in log
    units and one-sided. The paper has 0.4 on both sides.

    Raises:
        ValueError: a range is negative, or a shape does not fit.
    """
    check_not_negative(eps_low=eps_low, eps_high=eps_high)
    x, adv = objective_inputs(log_ratio, adv, mask)
    y = torch.where(adv > 0, x.clamp(max=eps_high), x.clamp(min=-eps_low))
    return keep(-_row(adv, mask) * _row(y, mask).exp(), mask)
