"""Supervised fine-tuning. ``logp`` are token log-probs ``(B, T)``, or ``(B,)``; results are like it."""

from __future__ import annotations

from torch import Tensor

from diffalign.losses.common import keep, masked_mean
from diffalign.losses.recipes.registry import recipe


@recipe("sft", "sft", aliases=("nll", "cross-entropy"), reduce=masked_mean)
def sft(logp: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Supervised fine-tuning: the negative log-likelihood, mean over all tokens (TRL's SFT; DPO's ``loss_type="sft"``
    on the chosen answers).

    Formula: -logp
    """
    return -keep(logp, mask)


@recipe("dft", "sft", reduce=masked_mean)
def dft(logp: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Dynamic fine-tuning (arXiv:2508.05629; TRL's SFT with ``loss_type="dft"``): the NLL of each token times its
    probability.

    Formula: -sg(exp(logp)) logp
    """
    x = keep(logp, mask)
    return -x.detach().exp() * x
