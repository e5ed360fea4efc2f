"""Checks a reward against the contract on a small batch: for self-tests, the command line and tests of plugins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffalign.rewards.base import Reward, check_reward
from diffalign.rewards.scoring import copied, score

TOLERANCE = 1e-5


def check_contract(
    reward: Reward, images: Tensor, prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]]
) -> Tensor:
    """Scores a batch in several ways and compares the results.

    Args:
        reward: The reward to check.
        images: `(B, 3, H, W)` in [0, 1], of which it can score each; whole groups for scopes other than pointwise.
        prompts: `B` prompts.
        metadata: `B` records.

    Returns:
        The scores, `(B,)`.

    Raises:
        ValueError: If an attribute is missing, a score is NaN, outside the declared range, not repeatable, depends on
            the neighbours (pointwise), images or records are changed, or a promised gradient is absent, zero or not
            finite.
    """
    check_reward(reward)
    before, records = images.clone(), [copied(record) for record in metadata]
    scores = _score(reward, images, prompts, metadata)
    if not torch.equal(images, before) or [copied(record) for record in metadata] != records:
        raise ValueError(f"reward {reward.name!r} changed its inputs")
    if scores.isnan().any():
        raise ValueError(f"reward {reward.name!r} could not score images {scores.isnan().nonzero().flatten().tolist()}")
    if reward.range and (scores.min() < reward.range[0] - TOLERANCE or scores.max() > reward.range[1] + TOLERANCE):
        raise ValueError(f"reward {reward.name!r} left its range {reward.range}: {scores.tolist()}")
    if not torch.equal(scores, _score(reward, images, prompts, metadata)):
        raise ValueError(f"reward {reward.name!r} scores the same images differently the second time")
    if reward.scope == "pointwise":
        _check_independence(reward, images, prompts, metadata, scores)
    if reward.differentiable:
        _check_gradient(reward, images, prompts, metadata)
    return scores


def _score(
    reward: Reward,
    images: Tensor,
    prompts: Sequence[str],
    metadata: Sequence[Mapping[str, Any]],
    *,
    grad: bool = False,
) -> Tensor:
    """`(B,)` scores as trainers get them."""
    return score({reward.name: reward}, images, prompts, metadata, grad=grad)[reward.name]


def _check_independence(
    reward: Reward, images: Tensor, prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]], scores: Tensor
) -> None:
    """A pointwise score of an image alone equals its score in the batch."""
    alone = [_score(reward, images[i : i + 1], prompts[i : i + 1], metadata[i : i + 1]) for i in range(len(images))]
    gap = (torch.cat(alone) - scores).abs().max()
    if gap > TOLERANCE * scores.abs().max().clamp(min=1):
        raise ValueError(f"reward {reward.name!r} is pointwise, but a score moves by {gap:.3g} with its neighbours")


def _check_gradient(
    reward: Reward, images: Tensor, prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]]
) -> None:
    """A differentiable score has a finite gradient that is not zero everywhere."""
    leaf = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(_score(reward, leaf, prompts, metadata, grad=True).sum(), leaf)
    if not gradient.isfinite().all() or not gradient.any():
        raise ValueError(f"reward {reward.name!r} declares a gradient, which is zero or not finite")
