"""Values of a whole set of images from their features: diversity, and distance to a distribution.

All are differentiable. Features come `(N, D)`; what they mean is the encoder's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

TINY = 1e-10
"""Eigenvalues below this share of the largest are noise: they carry no entropy, no root and no gradient."""


def unit(features: Tensor) -> Tensor:
    """Rows of length 1, `(N, D)`; a row of zeros stays zero."""
    return features / features.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(features.dtype).tiny)


def vendi_score(features: Tensor) -> Tensor:
    """Effective number of different members: exp of the entropy of the eigenvalues of K / N, K the cosines, in [1, N].

    N copies score 1, N orthogonal members N. Friedman and Dieng (arXiv 2210.02410).

    Args:
        features: `(N, D)`, N >= 1.

    Returns:
        A scalar.
    """
    _check(features=features)
    directions = unit(features)
    weights = torch.linalg.eigvalsh(directions @ directions.T / len(features))
    kept = weights > TINY
    return (-torch.where(kept, weights, 1.0).log() * torch.where(kept, weights, 0.0)).sum().exp()


def loo_diversity(features: Tensor) -> Tensor:
    """What each member adds to the mean pairwise 1 - cosine of its set, `(N,)`: div(S) - div(S without i).

    Sets of fewer than two have diversity 0. The credit of SGRPO's sets.

    Args:
        features: `(N, D)`.
    """
    _check(features=features)
    directions = unit(features)
    distance = 1 - directions @ directions.T
    distance = distance - torch.diag_embed(distance.diagonal())
    n, total = len(features), distance.sum()
    rest = total - 2 * distance.sum(0)
    return total / max(n * (n - 1), 1) - rest / max((n - 1) * (n - 2), 1)


def mmd2(x: Tensor, y: Tensor, bandwidths: Sequence[float] = tuple(range(1, 11))) -> Tensor:
    """Squared maximum mean discrepancy, biased form, with the sum of Gaussian kernels exp(-|a - b|^2 / 2h^2) / count.

    Not negative; 0 for identical samples. MD3QN (arXiv 2110.13578) uses it between samples of returns; its bandwidths
    are not settled, these are MMDQN's.

    Args:
        x: `(N, D)`.
        y: `(M, D)`.
        bandwidths: Positive h.

    Raises:
        ValueError: If the shapes do not fit or a bandwidth is not positive.
    """
    _check(x=x, y=y)
    if not bandwidths or min(bandwidths) <= 0:
        raise ValueError(f"bandwidths are positive, got {list(bandwidths)}")

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        square = ((a[:, None] - b[None]) ** 2).sum(-1)
        return torch.stack([(-square / (2 * h * h)).exp().mean() for h in bandwidths]).mean()

    return (kernel(x, x) - 2 * kernel(x, y) + kernel(y, y)).clamp(min=0.0)


class Statistics(NamedTuple):
    """Mean `(D,)` and covariance `(D, D)`, divided by N, of a set of features."""

    mean: Tensor
    covariance: Tensor


def statistics(features: Tensor) -> Statistics:
    """Mean and covariance of features `(N, D)`. Division by N, so that one sample has covariance 0."""
    _check(features=features)
    centred = features - features.mean(0)
    return Statistics(features.mean(0), centred.T @ centred / len(features))


def frechet_distance(features: Tensor, reference: Statistics) -> Tensor:
    """Frechet distance of the Gaussians of two sets: |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), a scalar >= 0.

    The trace of the root is that of the N x N matrix X S2 X^T / N, X the centred features, whose eigenvalues are those
    of S1 S2: cheap for the small groups of a roll-out, whatever D is, and without a root of a matrix.

    Args:
        features: `(N, D)`; N = 1 has covariance 0.
        reference: Statistics of the other set.

    Raises:
        ValueError: If the dimensions differ.
    """
    _check(features=features)
    mean, covariance = reference
    if mean.shape != features.shape[1:] or covariance.shape != (*mean.shape, *mean.shape):
        raise ValueError(
            f"features (N, {features.shape[1]}) against statistics {tuple(mean.shape)}, {tuple(covariance.shape)}"
        )
    centred = features - features.mean(0)
    inner = centred @ covariance @ centred.T / len(features)
    values = torch.linalg.eigvalsh((inner + inner.T) / 2)
    kept = values > TINY * values.max().clamp(min=TINY)
    root = torch.where(kept, values, 1.0).sqrt() * kept
    spread = (centred**2).sum() / len(features) + covariance.trace() - 2 * root.sum()
    return ((features.mean(0) - mean) ** 2).sum() + spread.clamp(min=0.0)


def _check(**features: Tensor) -> None:
    """Raises unless each is a non-empty `(N, D)` float matrix, all with one D."""
    for name, value in features.items():
        if value.ndim != 2 or not len(value) or not value.is_floating_point():
            raise ValueError(f"{name} must be (N, D) floats with N >= 1, got {tuple(value.shape)} {value.dtype}")
    if len({value.shape[1] for value in features.values()}) > 1:
        raise ValueError(f"features differ in dimension: { ({k: tuple(v.shape) for k, v in features.items()}) }")
