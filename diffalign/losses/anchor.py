"""Scores of feature vectors against learned anchors: reward bases, ideal points.

All have one shape, ``(features, anchors, weights=None, ...) -> (B,) or (B, U)``:

- ``features``: ``(B, D)``, e.g. CLIP or PickScore embeddings;
- ``anchors``: ``(U, D)`` heads, directions or points;
- ``weights``: ``(U,)`` for one user, or ``(B, U)`` per row. With weights the result is ``(B,)``; without, one score per
  anchor, ``(B, U)``.

Larger is better; all have a gradient. Use them as scores in a pair loss.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.linalg import vector_norm

from diffalign.losses.common import as_float, check_floating, check_positive

LOG_SCALE = math.log(1 / 0.07)
"""Initial log scale of CLIP and PAL."""


def _inputs(features: Tensor, anchors: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    check_floating(features=features, anchors=anchors)
    if features.ndim != 2 or anchors.ndim != 2 or features.shape[1] != anchors.shape[1]:
        raise ValueError(
            f"need features (B, D) and anchors (U, D), got {tuple(features.shape)} and {tuple(anchors.shape)}"
        )
    rows, anchor_count = features.shape[0], anchors.shape[0]
    if weights is not None and weights.shape not in ((anchor_count,), (rows, anchor_count)):
        raise ValueError(f"weights must be ({anchor_count},) or ({rows}, {anchor_count}), got {tuple(weights.shape)}")
    return as_float(features), as_float(anchors), None if weights is None else as_float(weights)


def linear(features: Tensor, anchors: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return ``features . anchor``, weighted: reward heads over frozen features (LoRe, DRM; with U = 1 one head).

    Raises:
        ValueError: a shape does not fit, or a type is integer.
    """
    features, anchors, weights = _inputs(features, anchors, weights)
    scores = features @ anchors.T
    return scores if weights is None else (scores * weights).sum(1)


def distance(features: Tensor, anchors: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return ``-|features - sum_u w_u anchor_u|``, an ideal point (PAL, OPPO); at the point itself the gradient is 0.

    Raises:
        ValueError: a shape does not fit, or a type is integer.
    """
    features, anchors, weights = _inputs(features, anchors, weights)
    if weights is None:
        return -vector_norm(features[:, None] - anchors, dim=-1)
    return -vector_norm(features - weights @ anchors, dim=1)


def cosine(
    features: Tensor,
    anchors: Tensor,
    weights: Tensor | None = None,
    *,
    log_scale: float | Tensor = LOG_SCALE,
    max_scale: float = 100.0,
) -> Tensor:
    """Return ``exp(log_scale)`` (at most ``max_scale``) times the cosine with the weighted anchor (PAL's code).

    ``log_scale`` may be a parameter. A vector of length 0 scores 0.

    Raises:
        ValueError: a shape does not fit, a type is integer, or ``max_scale`` is not positive.
    """
    check_positive(max_scale=max_scale)
    features, anchors, weights = _inputs(features, anchors, weights)
    scale = torch.as_tensor(log_scale, dtype=features.dtype, device=features.device).exp().clamp(max=max_scale)
    if weights is None:
        return scale * torch.cosine_similarity(features[:, None], anchors[None], dim=-1)
    return scale * torch.cosine_similarity(features, (weights @ anchors).expand_as(features), dim=1)


def preference_pca(difference: Tensor, *, n: int) -> Tensor:
    """Return the ``n`` leading directions of winner-minus-loser features and their opposites, ``(2 n, D)`` unit rows.

    DRM (arXiv:2502.13131): principal components of the centred differences, each a reward head in both orientations
    (first all ``+u``, then all ``-u``). Detached. The sign of a component is arbitrary.

    Raises:
        ValueError: ``difference`` is not ``(N, D)``, or ``n`` is not in 1..min(N, D).
    """
    check_floating(difference=difference)
    if difference.ndim != 2 or not 1 <= n <= min(difference.shape):
        raise ValueError(f"need differences (N, D) and n in 1..min(N, D), got {tuple(difference.shape)} and n = {n}")
    x = as_float(difference.detach())
    heads = torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[:n]
    return torch.cat([heads, -heads])


def norm_gap(features: Tensor) -> Tensor:
    """Return ``(|features| - 1)**2``, ``(B,)``: keeps embeddings ``(B, D)`` near the unit sphere (OPPO, scripted
    form).
    """
    return (vector_norm(as_float(features), dim=1) - 1) ** 2


def norm_excess(features: Tensor) -> Tensor:
    """Return ``relu(|features| - 1)``, ``(B,)``: keeps embeddings ``(B, D)`` in the unit ball (OPPO, human form)."""
    return (vector_norm(as_float(features), dim=1) - 1).relu()
