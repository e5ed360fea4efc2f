"""COPO: a local and a global advantage, blended by the agreement of a group's answers."""

from __future__ import annotations

import math

from torch import Tensor

from diffalign.losses.advantages import group_advantage, usable
from diffalign.losses.common import as_float, check_same_shape, keep
from diffalign.losses.policy import clip
from diffalign.losses.recipes.registry import recipe


def answer_entropy(answers: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Return the entropy in bits of each group's answers, ``(B,)``: 0 for one answer, ``log2 G`` for G different ones.

    Args:
        answers: ``(B, G)``, an integer per distinct answer; for images of clusters, or buckets of a reward.
        mask: ``(B, G)``.

    Raises:
        ValueError: ``answers`` is not ``(B, G)``, or the mask has another shape.
    """
    valid = usable(answers, mask)
    same = (answers[:, :, None] == answers[:, None, :]) & valid[:, None, :]
    size = valid.sum(1, keepdim=True).clamp(min=1)
    share = same.sum(2) / size
    return -keep(share.clamp(min=1e-30).log2(), valid).sum(1) / size[:, 0]


def consistent_reward(rewards: Tensor, answers: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Return the group's mean reward times ``1 - H (1 - 1/G) / log2 G``, ``(B,)`` (COPO, arXiv:2508.04138).

    The factor is 1 for equal answers and 1/G for G different ones. NaN for a group without a valid reward.

    Raises:
        ValueError: the shapes differ.
    """
    check_same_shape(rewards=rewards, answers=answers)
    valid = usable(rewards, mask)
    size = valid.sum(1).to(as_float(rewards).dtype)
    mean = keep(rewards.detach(), valid).sum(1) / size
    damp = (1 - 1 / size) / size.clamp(min=2).log2()
    return mean * (1 - damp * answer_entropy(answers, mask=valid))


def local_share(entropy: Tensor, local: Tensor, *, k: float = 1.0, b: float = 0.5) -> Tensor:
    """Return ``omega = sigmoid(k (H - b))``, the weight of the local advantage, ``(B, G)``; 0 where that advantage is 0
    (COPO; k and b from the code's signature).

    Args:
        entropy: ``(B,)``, H in bits.
        local: ``(B, G)``, advantage inside the group.
        k: steepness.
        b: entropy of equal weights.
    """
    if not math.isfinite(k) or not math.isfinite(b):
        raise ValueError(f"k and b must be finite, got {k} and {b}")
    omega = (k * (as_float(entropy.detach()) - b)).sigmoid()[:, None].expand_as(local)
    return keep(omega, local != 0)


@recipe("copo", "policy_group", k=1.0, b=0.5, eps=0.2)
def copo(log_ratio: Tensor, rewards: Tensor, answers: Tensor, *, k: float, b: float, eps: float) -> Tensor:
    """COPO (arXiv:2508.04138, its code): the clipped losses of a local and a global advantage, blended, ``(B G, ...)``.

    Formula: w clip(rho, A_local) + (1 - w) clip(rho, A_global), w = sigmoid(k (H - b)), H = entropy of the answers in
    bits

    The local advantage is GRPO's, the global one compares prompts by :func:`consistent_reward`. Groups of equal rewards
    have the global one only.

    Args:
        log_ratio: ``(B G,)`` or ``(B G, T)``.
        rewards: ``(B, G)``.
        answers: ``(B, G)``, an integer per distinct answer; for images of clusters.
        k: steepness of the blend.
        b: entropy of equal weights, in bits.
        eps: clip range.
    """
    local = group_advantage(rewards)
    among_prompts = group_advantage(consistent_reward(rewards, answers)[None])[0]
    broad = keep(among_prompts[:, None].expand_as(local), usable(rewards))
    omega = local_share(answer_entropy(answers, mask=usable(rewards)), local, k=k, b=b)
    share = omega.flatten().view(-1, *[1] * (log_ratio.ndim - 1))
    losses = [clip(log_ratio, adv.flatten(), eps_low=eps) for adv in (local, broad)]
    return share * losses[0] + (1 - share) * losses[1]
