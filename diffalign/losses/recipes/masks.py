"""Masks and importance weights of rollouts by name; see
:mod:`diffalign.losses.rollout_correction`."""

from __future__ import annotations

from torch import Tensor

from diffalign.losses.common import masked_mean
from diffalign.losses.policy import reinforce
from diffalign.losses.policy_objectives import objective_inputs
from diffalign.losses.recipes.registry import recipe
from diffalign.losses.rollout_correction import off_policy_sequence_mask, token_weights, top_entropy_mask

recipe("off-policy-sequence-mask", "mask", aliases=("opsm",), threshold=0.5)(off_policy_sequence_mask)
recipe("top-entropy-mask", "mask", aliases=("80-20", "top-entropy"), share=0.2)(top_entropy_mask)
recipe("truncated-importance-sampling", "mask", aliases=("tis",), upper=2.0)(token_weights)


@recipe("rollout-correction", "policy", aliases=("bypass-mode",), reduce=masked_mean, upper=2.0)
def rollout_corrected(
    log_ratio: Tensor, adv: Tensor, *, upper: float, lower: float | None = None, mask: Tensor | None = None
) -> Tensor:
    """REINFORCE with truncated importance weights (verl's ``bypass_mode`` with ``loss_type: reinforce``).

    Formula: -sg(w) A log_ratio, w = min(rho, upper); with ``lower``, w = rho inside [lower, upper] and 0 outside

    ``log_ratio`` is that of the policy to the sampler. With ``loss_type: ppo_clip`` verl's mode is ``dual-clip-ppo`` on
    that ratio. Weights per sequence and rejection masks: :mod:`diffalign.losses.rollout_correction`.
    """
    x, wide = objective_inputs(log_ratio, adv, mask)
    return reinforce(x, wide * token_weights(x, upper=upper, lower=lower, mask=mask), mask=mask)
