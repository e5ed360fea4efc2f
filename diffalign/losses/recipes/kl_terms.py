"""KL terms of a policy loss by name; see :mod:`diffalign.losses.regularizers` for values and gradients."""

from __future__ import annotations

from torch import Tensor

from diffalign.losses.common import as_float, check_same_shape
from diffalign.losses.policy_objectives import bounded_ratio
from diffalign.losses.recipes.registry import recipe
from diffalign.losses.regularizers import k1, k2, k3, k_abs, straight_through

recipe("k1", "regularizer", aliases=("kl",))(k1)
recipe("k2", "regularizer", aliases=("mse-kl",))(k2)
recipe("k3", "regularizer", aliases=("low-var-kl",))(k3)
recipe("kl-abs", "regularizer", aliases=("abs-kl",))(k_abs)


@recipe("k1+", "regularizer")
def k1_straight(log_ratio: Tensor) -> Tensor:
    """verl's ``k1+``: the value of k1 with the gradient of k2, that of KL(p || ref).

    Formula: k2 - sg(k2) + sg(k1), k1 = r, k2 = r**2 / 2
    """
    return straight_through(k1(log_ratio), log_ratio)


@recipe("k3+", "regularizer")
def k3_straight(log_ratio: Tensor) -> Tensor:
    """verl's ``k3+``: the value of k3 with the gradient of k2, that of KL(p || ref).

    Formula: k2 - sg(k2) + sg(k3), k3 = exp(-r) + r - 1, k2 = r**2 / 2
    """
    return straight_through(k3(log_ratio), log_ratio)


@recipe("bias-corrected-kl", "regularizer")
def bias_corrected_kl(log_ratio: Tensor, log_ratio_old: Tensor) -> Tensor:
    """DeepSeek-V3.2's KL term (arXiv:2512.02556; TRL's ``use_bias_correction_kl``): k3 times the importance ratio.

    Its expected gradient is that of KL(p || ref), on and off policy.

    Formula: rho (exp(-r) + r - 1), rho = exp(log_ratio_old) with its gradient

    Args:
        log_ratio: r, log-prob of the policy minus that of the reference, any shape.
        log_ratio_old: same shape, log-prob of the policy minus that at rollout, with its gradient (its value is 0 on
            policy).
    """
    check_same_shape(log_ratio=log_ratio, log_ratio_old=log_ratio_old)
    return bounded_ratio(as_float(log_ratio_old)) * k3(log_ratio)
