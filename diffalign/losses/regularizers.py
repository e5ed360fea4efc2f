"""Sample estimates of a KL divergence from log-ratios.

``r = log p - log ref`` on samples of the policy ``p``. As values, k1 and k3 estimate KL(p || ref) without bias and k2
does not. As *losses* the picture turns, because the gradient goes through the samples' log-probs only: on samples of
``p`` itself the expected gradient of k1 is zero, of k2 that of KL(p || ref), of k3 that of KL(ref || p). So: k1
belongs in a reward, k2 in a loss that wants the reverse KL, and k3 in a loss is a pull of the forward kind [derived].
"""

from __future__ import annotations

from torch import Tensor

from diffalign.losses.common import as_float


def k1(log_ratio: Tensor) -> Tensor:
    """Return ``r``: unbiased value, high variance, zero expected gradient. Any shape, unreduced fp32."""
    return as_float(log_ratio)


def k2(log_ratio: Tensor) -> Tensor:
    """Return ``r**2 / 2``: biased value, but its on-policy gradient is that of KL(p || ref). Any shape, unreduced
    fp32.
    """
    return as_float(log_ratio) ** 2 / 2


def k3(log_ratio: Tensor, *, max_log_ratio: float = 20.0) -> Tensor:
    """Return ``exp(-r) + r - 1``: never negative, unbiased value, gradient of KL(ref || p). Any shape, unreduced fp32.

    Args:
        log_ratio: ``r = log p - log ref``.
        max_log_ratio: ``r`` is held above ``-max_log_ratio``, where the exponential would overflow; the gradient
            there is 0.
    """
    r = as_float(log_ratio).clamp(min=-max_log_ratio)
    return (-r).expm1() + r
