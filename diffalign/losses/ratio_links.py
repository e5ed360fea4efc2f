"""Links of f-divergences: increasing functions of the log-ratio ``r``, applied before the difference of a pair.

All have one shape, ``(r, *, ...) -> like r``, fp32 (fp64 kept). In f-DPO (arXiv:2309.16240) the link is ``f'(exp r)``
up to constants, which cancel in a pair; AlphaPO's reward shape (arXiv:2501.03884) is :func:`power_link` on mean
log-probs. The plain log-ratio itself is the reverse KL.

Surrogate log-ratios of diffusion models reach hundreds: scale before :func:`power_link`, or take :func:`js_link`.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from diffalign.losses.common import as_float, check_positive


def power_link(r: Tensor, *, alpha: float, max_exp: float = 80.0) -> Tensor:
    """Return ``(1 - exp(-alpha r)) / alpha``; slope ``exp(-alpha r)``, ``r`` itself at alpha = 0.

    alpha = 1 is the forward KL, -1 Pearson's chi-square. TRL's later convention is ``1 - alpha``.

    Args:
        r: log-ratio (f-DPO) or mean log-prob (AlphaPO), any shape.
        alpha: any sign; above 0 it amplifies unlikely samples, below 0 it damps them.
        max_exp: bound of the exponent ``-alpha r``, beyond which the slope is 0 (80 for fp32, as in TRL).

    Raises:
        ValueError: ``max_exp`` is not positive.
    """
    check_positive(max_exp=max_exp)
    r = as_float(r)
    if alpha == 0:
        return r
    return -(-alpha * r).clamp(max=max_exp).expm1() / alpha


def js_link(r: Tensor) -> Tensor:
    """Return ``log sigmoid(r)``: Jensen-Shannon; bounded above by 0, slope at most 1."""
    return F.logsigmoid(as_float(r))


def clip_link(r: Tensor, *, eps: float = 0.1) -> Tensor:
    """Return ``log clip(exp(r), 1 - eps, 1 + eps)`` (D3PO and step-wise DPO, eps 0.1).

    A hard clip: outside the band there is no gradient, also if the ratio has moved in the wrong direction.

    Raises:
        ValueError: eps is outside (0, 1).
    """
    if not 0 < eps < 1:
        raise ValueError(f"eps must be in (0, 1), got {eps}")
    return as_float(r).clamp(math.log1p(-eps), math.log1p(eps))
