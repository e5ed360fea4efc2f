"""Weights of tokens (or steps) from a model that scores them: where in a sample its outcome is decided (OREAL)."""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.common import as_float, check_mask, check_same_shape, keep


def running_mean(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean of the valid scores up to and with each position, ``(B, T)``; 0 at masked positions."""
    if scores.ndim != 2:
        raise ValueError(f"scores must have shape (B, T), got {tuple(scores.shape)}")
    valid = check_mask(scores, mask)
    valid = torch.ones_like(scores, dtype=torch.bool) if valid is None else valid
    total = keep(scores, valid).cumsum(1)
    return keep(total / valid.cumsum(1).clamp(min=1), valid)


def outcome_weights(scores: Tensor, positive: Tensor, *, threshold: float = 0.5, mask: Tensor | None = None) -> Tensor:
    """Return ``clamp((p - threshold) / (1 - threshold), 0, 1)``, ``(B, T)``, detached, with p the probability of the
    sample's own outcome as foreseen at that token.

    OREAL (arXiv:2502.06781, InternLM/OREAL train_oreal.py): ``p = sigmoid(running mean of the scores)`` for a positive
    sample and one minus that for a negative one. An undecided token (p = 1/2) has weight 0.

    Args:
        scores: ``(B, T)``, output of the token model.
        positive: ``(B,)`` bool, outcome of each sample.
        threshold: in [0, 1).
        mask: ``(B, T)``.

    Raises:
        ValueError: a shape does not fit, or the threshold is out of range.
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold must be in [0, 1), got {threshold}")
    logits = running_mean(as_float(scores.detach()), mask)
    check_same_shape(samples=scores[:, 0], positive=positive)
    p = torch.where(positive.bool()[:, None], logits, -logits).sigmoid()
    return keep(((p - threshold) / (1 - threshold)).relu(), mask)
