"""Policy-gradient objectives, on ratios to the policy that sampled the answers; pairs are two answers of a group.

Names with a dot are functions of ``diffalign.losses`` (`policy.clip`), the others ids of recipes with their published
settings.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from batch import Batch, Objective
from torch import Tensor

from diffalign.losses import discriminative, group_advantage, policy, policy_pairs, policy_soft, recipes
from diffalign.losses.baselines import median_center
from diffalign.losses.recipes.ppo_max import ValueHead
from diffalign.losses.regularizers import k3


def adv(b: Batch) -> Tensor:
    """GRPO's advantage of each answer, ``(B G,)``."""
    return group_advantage(b.rewards).flatten()


def surrogate(loss: Callable[..., Tensor]) -> Objective:
    """A loss of token log-ratios and an advantage for each answer."""
    return lambda b: loss(b.x, adv(b))


def target(b: Batch) -> Tensor:
    """The goal is from the reward minus the group's median."""
    score = group_advantage(b.rewards, center=median_center).flatten()
    return policy_soft.target(b.x, adv(b), goal=policy_soft.target_ratio(score))


def kl_mask(b: Batch) -> Tensor:
    """The KL to the rollout policy is estimated at the sampled token."""
    return policy.kl_mask(b.x, adv(b), kl=k3(-b.x).detach(), limit=0.02)


def two(values: Tensor) -> Tensor:
    """The first two answers of each group, ``(B, 2)``."""
    return values[:, :2]


def pair(loss: Callable[..., Tensor]) -> Objective:
    """A loss of two answers' summed log-ratios and the gap of their rewards."""
    return lambda b: loss(two((b.logp - b.old).sum(-1)), policy_pairs.reward_gap(two(b.rewards)))


def good(b: Batch) -> Tensor:
    """Answers above their group's mean, ``(B, G)`` bool."""
    return b.rewards > b.rewards.mean(1, keepdim=True)


def entropy(b: Batch) -> Tensor:
    """Entropy of the policy at each token in nats, ``(B G, T)``."""
    logp = b.full_log_probs()[0].detach()
    return -(logp.exp() * logp).sum(-1).flatten(0, 1)


def nash_md(b: Batch) -> Tensor:
    """The opponent's answer is the next one of the group."""
    win = (8 * (b.rewards - b.rewards.roll(1, 1))).sigmoid().flatten()
    return recipes.get("nash-md")(b.x, (b.logp - b.ref).flatten(0, 1), win, tau=0.01)


def dypo(b: Batch) -> Tensor:
    """Answers above two thirds pass; the teacher's sample is the best of the group."""
    passed, teacher = b.rewards > 2 / 3, -b.winner(b.logp.mean(-1))
    return recipes.get("dypo")(passed, (b.logp - b.old).mean(-1), b.r, teacher)


def ppo_max(b: Batch) -> Tensor:
    """Without a value head: its loss is constant."""
    values = torch.zeros_like(b.x)
    return recipes.get("ppo-max")(b.x, adv(b)[:, None].expand_as(b.x), head=ValueHead(values, values, values))


OBJECTIVES: dict[str, Objective] = {
    "policy.reinforce": surrogate(policy.reinforce),
    "policy.ratio": surrogate(policy.ratio),
    "policy.clip": surrogate(policy.clip),
    "policy.dual_clip": surrogate(policy.dual_clip),
    "policy.kl_mask": kl_mask,
    "policy_soft.target": target,
    "policy_pairs.pair_plain": pair(policy_pairs.pair_plain),
    "policy_pairs.pair_joint": pair(policy_pairs.pair_joint),
    "policy_pairs.pair_separate": pair(policy_pairs.pair_separate),
    "discriminative.discriminative": lambda b: discriminative.discriminative(b.logp.mean(-1), good(b)),
    "ngrpo": lambda b: recipes.get("ngrpo")(b.x, b.rewards),
    "brrl": lambda b: recipes.get("brrl")(b.x, b.rewards),
    "copo": lambda b: recipes.get("copo")(b.x, b.rewards, (6 * b.rewards).round().long()),
    "p3o": lambda b: recipes.get("p3o")(two((b.logp - b.old).sum(-1)), two(b.rewards), two(b.r)),
    "drpo-decoupled": lambda b: recipes.get("drpo-decoupled")(b.logp.mean(-1), b.old.mean(-1), good(b), b.rewards),
    "retool": lambda b: recipes.get("retool")(b.x, adv(b), mask=torch.ones_like(b.x).bool()),
    "hapo-hetero": lambda b: recipes.get("hapo-hetero")(b.x, b.rewards, entropy(b)),
    "c-morl": lambda b: recipes.get("c-morl")(b.x, adv(b), returns=torch.ones(1)),
    "nash-md": nash_md,
    "dypo": dypo,
    "ppo-max": ppo_max,
}
