"""Similarity of two sets of features: phrases, patches, examples."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from diffalign.rewards.functions.sets import unit


def max_avg_similarity(x: Tensor, y: Tensor) -> Tensor:
    """Mean of both directions of "best cosine of each row, averaged", a scalar in [-1, 1].

    Symmetric; 1 for equal sets; the order of rows does not matter. Mixed-R1's bidirectional max-average similarity
    (arXiv 2505.24164), rebuilt from its name.

    Args:
        x: `(N, D)` features, e.g. phrases of a prompt.
        y: `(M, D)`, e.g. phrases of a caption.
    """
    cosine = unit(x) @ unit(y).T
    return (cosine.max(1).values.mean() + cosine.max(0).values.mean()) / 2


def transport_similarity(x: Tensor, y: Tensor, *, blur: float = 0.05, steps: int = 200) -> Tensor:
    """Minus the cost of moving x's features onto y's, cost 1 - cosine, a scalar in [-2, 0].

    Equal masses, entropic plan (Sinkhorn in the log domain). RAPL (arXiv 2310.07932, 2412.04835): patches of an image
    against patches of a preferred one, in an encoder trained to order them; derived.

    Args:
        x: `(N, D)`.
        y: `(M, D)`.
        blur: Entropic temperature in units of the cost; the plan is exact as it goes to 0, and slower.
        steps: Sinkhorn iterations.

    Raises:
        ValueError: If blur or steps are not positive.
    """
    if blur <= 0 or steps < 1:
        raise ValueError(f"blur and steps must be positive, got {blur} and {steps}")
    cost = 1 - unit(x) @ unit(y).T
    n, m = cost.shape
    kernel = -cost / blur
    log_a, log_b = -cost.new_tensor(n).log(), -cost.new_tensor(m).log()
    f, g = cost.new_zeros(n), cost.new_zeros(m)
    for _ in range(steps):
        f = log_a - (kernel + g).logsumexp(1)
        g = log_b - (kernel + f[:, None]).logsumexp(0)
    return -(cost * (kernel + f[:, None] + g).exp()).sum()


def neighbour_mean(
    rewards: Tensor, similarity: Tensor, *, threshold: float = 0.9, most: int = 5, self_weight: float = 1.0
) -> Tensor:
    """Rewards averaged over a sample and those that are like it: sum s_k r_k / sum s_k, `(B,)`.

    RewardFusion (arXiv 2309.16155), the form of shadowkiller33/Contrast-Instruction: at most 5 neighbours of cosine
    at least 0.9. On images the neighbours are augmentations or nearby seeds. NaN rewards leave both sums.

    Args:
        rewards: `(B,)` rewards of the samples.
        similarity: `(B, B)` similarities; the diagonal is not read.
        threshold: Least similarity of a neighbour.
        most: Most neighbours of a sample.
        self_weight: Weight of the sample itself.

    Raises:
        ValueError: If the shapes do not fit.
    """
    size = len(rewards)
    if similarity.shape != (size, size):
        raise ValueError(f"{size} rewards need similarity ({size}, {size}), got {tuple(similarity.shape)}")
    itself = torch.eye(size, dtype=torch.bool, device=rewards.device)
    usable = (similarity >= threshold) & ~itself & rewards.isfinite()
    near = torch.where(usable, similarity, -torch.inf).topk(min(most, size), dim=1)
    weights = torch.zeros_like(similarity).scatter(1, near.indices, near.values.clamp(min=0.0))
    weights = weights + self_weight * (itself & rewards.isfinite())
    known = torch.where(rewards.isfinite(), rewards, 0.0)
    return (weights @ known) / weights.sum(1)


class Exemplars(NamedTuple):
    """A naive-Bayes classifier on the features that tell wanted examples from others, `(M,)` each."""

    chosen: Tensor
    wanted_mean: Tensor
    wanted_std: Tensor
    other_mean: Tensor
    other_std: Tensor


def fit_exemplars(wanted: Tensor, other: Tensor, *, features: int = 32, contrast: float = 5.0) -> Exemplars:
    """Picks the features with the largest a |mean+ - mean-| - (std+ + std-) and fits a Gaussian to each side.

    Unsupervised perceptual rewards (arXiv 1612.06699), M 32 and a 5 as far as known; the step weights are for videos.

    Args:
        wanted: `(N, D)` features of a few examples, N >= 2.
        other: `(K, D)` features of anything else, K >= 2.
        features: M, most features kept.
        contrast: a.

    Raises:
        ValueError: If a side has fewer than two examples or the dimensions differ.
    """
    if min(len(wanted), len(other)) < 2 or wanted.shape[1:] != other.shape[1:] or wanted.ndim != 2:
        raise ValueError(f"expected (N >= 2, D) on both sides, got {tuple(wanted.shape)} and {tuple(other.shape)}")
    means, stds = (wanted.mean(0), other.mean(0)), (wanted.std(0), other.std(0))
    merit = contrast * (means[0] - means[1]).abs() - (stds[0] + stds[1])
    index = merit.topk(min(features, len(merit))).indices
    return Exemplars(index, means[0][index], stds[0][index], means[1][index], stds[1][index])


def gaussian_exemplar(features: Tensor, exemplars: Exemplars, *, least_std: float = 1e-3) -> Tensor:
    """Probability that features `(B, D)` are those of a wanted image, equal priors, `(B,)` in [0, 1]."""
    values = features[:, exemplars.chosen]

    def log_density(mean: Tensor, std: Tensor) -> Tensor:
        std = std.clamp(min=least_std)
        return (-0.5 * ((values - mean) / std) ** 2 - std.log()).sum(1)

    wanted = log_density(exemplars.wanted_mean, exemplars.wanted_std)
    return (wanted - log_density(exemplars.other_mean, exemplars.other_std)).sigmoid()
