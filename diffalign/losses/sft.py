"""Terms that pull towards good samples.

All have one shape, ``u -> like u``, unreduced fp32, to be minimised: ``u = beta * log-ratio`` of a sample that is known
to be good, or minus its denoising error. But for ``logsigmoid`` (slope -1/2) the slope at 0 is -1: the first step is
that of plain fine-tuning, what differs is what follows.

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
    """Return ``-u``: plain fine-tuning. Three scalings circulate for RPO's term (sum, token mean, with or without
    beta): pass what is already reduced and weight the result.
    """
    return -_value(u)


def logsigmoid(u: Tensor) -> Tensor:
    """Return ``-log sigmoid(u)``: stops pulling once ``u`` is large (GRM, RDPO)."""
    return softplus(-_value(u))


def chi2(u: Tensor) -> Tensor:
    """Return ``-u + u**2 / 4``: minimal at ``u = 2``, pulls back beyond (f-SFT)."""
    u = _value(u)
    return -u + u**2 / 4


def hellinger(u: Tensor, *, floor: float = -0.9) -> Tensor:
    """Return ``-u / (1 + u)``: saturates at -1 (f-SFT).

    Singular at ``u = -1``, so below ``floor`` (in (-1, 0]) it goes on along its tangent [ours]: a sample that the
    policy has lost is still pulled back, with a bounded force.

    Raises:
        ValueError: ``floor`` is out of range.
    """
    if not -1 < floor <= 0:
        raise ValueError(f"floor must be in (-1, 0], got {floor}")
    u = _value(u)
    held = u.clamp(min=floor)
    return -held / (1 + held) - (u - held) / (1 + floor) ** 2


def exp(u: Tensor, *, max_exponent: float = 20.0) -> Tensor:
    """Return ``exp(-u)``, the conjugate of the KL divergence up to a shift; often printed as Hellinger's.

    ``-u`` is held below ``max_exponent``, where the gradient is 0.
    """
    check_positive(max_exponent=max_exponent)
    return (-_value(u)).clamp(max=max_exponent).exp()
