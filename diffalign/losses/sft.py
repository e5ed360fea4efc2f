"""Supervised terms on positive samples.

All have one shape, ``u -> like u``, unreduced fp32, to be minimised: ``u = beta * log-ratio`` of a positive sample, or
minus its denoising error. The slope at 0 is -1, that of plain fine-tuning (``logsigmoid``: -1/2); the functions differ
away from 0.

``chi2``, ``hellinger`` and ``nll`` are ``f*(-u)`` with f* the convex conjugate of Pearson's chi-squared
(``t + t**2 / 4``), the squared Hellinger (``t / (1 - t)``) and the total-variation divergence (``t``): f-SFT
[derived from the conjugates].
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from diffalign.losses.common import as_float, check_floating, check_positive


def _value(u: Tensor) -> Tensor:
    check_floating(u=u)
    return as_float(u)


def nll(u: Tensor) -> Tensor:
    """Return ``-u``: plain fine-tuning. RPO's term exists with three scalings (sum, token mean, with or without beta):
    pass a reduced ``u`` and weight the result.
    """
    return -_value(u)


def logsigmoid(u: Tensor) -> Tensor:
    """Return ``-log sigmoid(u)``: saturates for large ``u`` (GRM, RDPO)."""
    return softplus(-_value(u))


def chi2(u: Tensor) -> Tensor:
    """Return ``-u + u**2 / 4``: minimal at ``u = 2`` (f-SFT)."""
    u = _value(u)
    return -u + u**2 / 4


def hellinger(u: Tensor, *, floor: float = -0.9) -> Tensor:
    """Return ``-u / (1 + u)``: saturates at -1 (f-SFT).

    Singular at ``u = -1``, so below ``floor`` (in (-1, 0]) it continues along its tangent [ours], with a bounded
    gradient.

    Raises:
        ValueError: ``floor`` is out of range.
    """
    if not -1 < floor <= 0:
        raise ValueError(f"floor must be in (-1, 0], got {floor}")
    u = _value(u)
    held = u.clamp(min=floor)
    return -held / (1 + held) - (u - held) / (1 + floor) ** 2


def exp(u: Tensor, *, max_exponent: float = 20.0) -> Tensor:
    """Return ``exp(-u)``, the conjugate of the KL divergence up to a shift; some papers print it as Hellinger's.

    ``-u`` is clamped to at most ``max_exponent``, without a gradient beyond.
    """
    check_positive(max_exponent=max_exponent)
    return (-_value(u)).clamp(max=max_exponent).exp()
