"""Regression of log-ratios on targets: advantages, centred win rates, log-rewards."""

from __future__ import annotations

from torch import Tensor

from diffalign.losses.common import (
    check_any_valid,
    check_floating,
    check_positive,
    check_same_shape,
    keep,
    per_row,
)


def regression_loss(
    log_ratio: Tensor,
    target: Tensor,
    *,
    beta: float | Tensor = 1.0,
    log_z: float | Tensor = 0.0,
    mask: Tensor | None = None,
) -> Tensor:
    """Return ``(beta * r + log Z - target)**2``, unreduced fp32, like ``log_ratio``.

    Direct-advantage DAPO (target = advantage), GPO and SPPO (centred win rate, ``r`` to the current iterate) and
    trajectory balance (``r = log P_F - log P_B``, target = log-reward, learned ``log_z``). ``(r - target / beta)**2``
    in some papers is this loss over ``beta**2``.

    Scale: unlike for a logistic loss, rescaling beta does not turn the loss on sums into that on means: tune beta on a
    surrogate or a mean over latent elements.

    Args:
        log_ratio: ``r``, ``(B,)`` or ``(B, T)``; with gradient.
        target: same shape; detached.
        beta: positive, a number, ``()``, ``(B,)`` or ``(B, T)``; detached.
        log_z: log-normaliser, shaped like ``beta``; with gradient, it may be learned.
        mask: shape of ``log_ratio``, 1 where valid.

    Raises:
        ValueError: shapes do not fit, log-ratios are integers, beta is not positive, or nothing is valid.
    """
    check_floating(log_ratio=log_ratio)
    check_same_shape(log_ratio=log_ratio, target=target)
    check_positive(beta=beta)
    check_any_valid(mask)
    r, goal = keep(log_ratio, mask), keep(target.detach(), mask)
    scaled = per_row(beta, r).detach() * r + per_row(log_z, r)
    return keep((scaled - goal) ** 2, mask)
