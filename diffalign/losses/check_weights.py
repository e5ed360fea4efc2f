"""Rewards from many yes/no checks of one prompt (objects, counts, colours, positions; unit tests of a program).

``passed``: ``(..., N, U)``, U checks of N samples: bool, or 1 and 0, NaN for a check that was not evaluated. NaN is
left out of numerator and denominator. All is detached fp32 (fp64 kept).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffalign.losses.common import (
    as_float,
    check_not_negative,
    check_positive,
    check_probability,
    check_same_shape,
    keep,
)
from diffalign.losses.reward_combination import passed_all


def _checks(passed: Tensor) -> Tensor:
    if passed.ndim < 2 or passed.numel() == 0:
        raise ValueError(f"passed must have shape (..., N, U) with samples and checks, got {tuple(passed.shape)}")
    return as_float(passed.detach())


def check_weights(passed: Tensor, *, alpha: float = 1.0, sigma: float = 0.1, delta: float = 1e-6) -> Tensor:
    """Return a weight per check: larger for hard checks, divided among checks of similar pass rate (VeRPO,
    arXiv:2601.03525).

    With the pass rates ``rho``: ``w_j = exp(-alpha rho_j) / (N_j + delta)``, ``N_j = sum_i exp(-(rho_j - rho_i)**2 / (2
    sigma**2))``. A duplicate check changes nothing (small sigma). ``alpha=0, sigma=inf`` gives equal weights. The
    paper's constants are unknown, the defaults are ours [second-hand].

    Args:
        passed: checks of the group of one prompt, as above.
        alpha: strength of the weighting by difficulty; 0 for none.
        sigma: kernel width of similar difficulty, in pass rate.
        delta: added to the number of similar checks.

    Returns:
        ``(..., U)``; 0 for a check without any result.

    Raises:
        ValueError: ``sigma`` is not positive, or ``delta`` negative, or there is no check.
    """
    check_not_negative(delta=delta)
    if not (sigma > 0 and math.isfinite(alpha)):
        raise ValueError(f"sigma must be positive and alpha finite, got {sigma} and {alpha}")
    rho = _checks(passed).nanmean(-2)
    made = ~rho.isnan()
    rho = keep(rho, made)
    like = (-((rho[..., :, None] - rho[..., None, :]) ** 2) / (2 * sigma**2)).exp()
    density = torch.where(made[..., None, :], like, torch.zeros_like(like)).sum(-1)
    return torch.where(made, (-alpha * rho).exp() / (density + delta), torch.zeros_like(rho))


def local_reward(passed: Tensor, weights: Tensor) -> Tensor:
    """Return ``sum_j w_j passed_ij``, ``(..., N)``. Where checks are NaN, the others are scaled up to the sum of all
    weights.

    Args:
        passed: ``(..., N, U)`` checks, as above.
        weights: ``(..., U)``, not negative.

    Returns:
        NaN for a sample without any weighted result.

    Raises:
        ValueError: a weight is negative, or the shapes do not fit.
    """
    passed = _checks(passed)
    check_same_shape(weights=weights, checks=passed[..., 0, :])
    check_not_negative(weights=weights)
    w, made = weights.detach().to(passed)[..., None, :], ~passed.isnan()
    share = (w * keep(passed, made)).sum(-1) / (w * made).sum(-1)
    return share * w.sum(-1)


def global_reward(passed: Tensor, turns: Tensor | None = None, *, gamma: float = 1.0) -> Tensor:
    """Return ``1[all passed] * gamma**turns``, ``(..., N)``; NaN where a NaN check decides.

    Args:
        passed: ``(..., N, U)`` checks, as above.
        turns: ``(..., N)``, number of attempts or denoising steps; None for no discount.
        gamma: discount per turn, in (0, 1].

    Raises:
        ValueError: ``gamma`` is outside (0, 1], a check is neither 0 nor 1, or the shapes differ.
    """
    check_positive(gamma=gamma)
    check_probability(gamma=gamma)
    done = passed_all(_checks(passed).movedim(-1, 0))
    if turns is None:
        return done
    check_same_shape(turns=turns, samples=done)
    return done * gamma ** turns.detach().to(done)
