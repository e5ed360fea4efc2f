"""Off-policy objectives and imitation; the best answer of a group is the expert's."""

from __future__ import annotations

import torch
from batch import Batch, Objective
from policies import adv, good
from torch import Tensor
from world import correct

from diffalign.losses import policy_off, recipes
from diffalign.losses.recipes.oreal import oreal_advantage


def flat(values: Tensor) -> Tensor:
    """``(B, G, T)`` to ``(B G, T)``."""
    return values.flatten(0, 1)


def best(b: Batch) -> Tensor:
    """The best answer of each group, ``(B, G)`` bool."""
    return torch.nn.functional.one_hot(b.rewards.argmax(1), b.rewards.shape[1]).bool()


def mixture(b: Batch) -> Tensor:
    """With the focal factor and the gap of RL-PLUS."""
    weighted = adv(b)[:, None] * policy_off.focal_factor(flat(b.logp))
    return policy_off.mixture(b.x, weighted, gap=policy_off.halfway_gap(flat(b.old)))


def oreal(b: Batch) -> Tensor:
    """Weighted so that the plain sum is the loss."""
    advantage = oreal_advantage(b.rewards).flatten()
    return recipes.get("oreal")(flat(b.logp), flat(b.ref), advantage, good(b).flatten(), None).sum()


def omniopd(b: Batch) -> Tensor:
    """Each token is audited, a chunk of one; four samples of the teacher agree on the correct tokens."""
    place, r = torch.arange(b.x.shape[1]), flat(b.logp - b.ref)
    similarity = flat(correct(b.tokens))[:, None].expand(-1, 4, -1)
    audited = [(place == t).expand_as(b.x) for t in place]
    return torch.stack([recipes.get("omniopd")(b.x, r, similarity[..., t], audited[t]) for t in place])


def critique_grpo(b: Batch) -> Tensor:
    """The best answer is the refinement."""
    return recipes.get("critique-grpo")(b.x, flat(b.logp), b.rewards, best(b))


def famo2o(b: Batch) -> Tensor:
    """With the coefficient 1."""
    return recipes.get("famo2o")(flat(b.logp), adv(b), torch.ones(b.rewards.numel()))


def superhf(b: Batch) -> Tensor:
    """Fine-tuning on the best of four."""
    return recipes.get("superhf")(b.rewards, -b.logp.mean(-1), torch.zeros_like(b.rewards))


OBJECTIVES: dict[str, Objective] = {
    "policy_off.shaped": lambda b: policy_off.shaped(flat(b.logp), adv(b)),
    "policy_off.mixture": mixture,
    "policy_off.awr": lambda b: policy_off.awr(flat(b.logp), adv(b)),
    "rl-plus": lambda b: recipes.get("rl-plus")(flat(b.logp), flat(b.old), adv(b), best(b).flatten()),
    "oreal": oreal,
    "omniopd": omniopd,
    "critique-grpo": critique_grpo,
    "famo2o": famo2o,
    "superhf": superhf,
    "f-sft": lambda b: recipes.get("f-sft")(b.winner(b.r), beta=0.1),
}
