"""Log-probs of masked models (discrete diffusion language models) for policy gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.common import as_float, check_floating, check_probability, check_same_shape


def coupled_log_prob(full: Tensor, subset: Tensor, rest: Tensor, chosen: Tensor, ratio: Tensor) -> Tensor:
    """Return the log-prob of each token from three masks, ``(B, L)`` (coupled-GRPO; the form of ml-diffucoder's code).

    ``(full + subset / ratio)`` over 2 on the chosen tokens, ``(full + rest / (1 - ratio))`` over 2 on the others. It is
    not normalised: if log-probs do not depend on the mask, its mean over masks is 1.5 times the log-prob.

    Args:
        full: ``(B, L)`` log-probs with every token masked.
        subset: ``(B, L)`` with the chosen tokens masked.
        rest: ``(B, L)`` with the others masked.
        chosen: ``(B, L)``, 1 where chosen.
        ratio: ``(B,)`` share of chosen tokens, in (0, 1); 0.2 to 0.8 there.

    Raises:
        ValueError: shapes do not fit, or a ratio is outside (0, 1).
    """
    check_floating(full=full, subset=subset, rest=rest)
    check_same_shape(full=full, subset=subset, rest=rest, chosen=chosen)
    check_probability(open_ends=True, ratio=ratio)
    if full.ndim != 2 or ratio.shape != full.shape[:1]:
        raise ValueError(f"log-probs must be (B, L) and ratio (B,), got {tuple(full.shape)} and {tuple(ratio.shape)}")
    share = as_float(ratio.detach())[:, None]
    partial = torch.where(chosen.bool(), as_float(subset) / share, as_float(rest) / (1 - share))
    return (as_float(full) + partial) / 2
