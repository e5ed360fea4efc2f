"""Objectives on groups of answers, on single desirable and undesirable ones, and regressions on their rewards."""

from __future__ import annotations

import torch
from batch import Batch, Objective
from pairs import BETA
from pairs_in_context import forward_kl
from torch import Tensor
from world import LENGTH, correct

from diffalign.losses import listwise, log_ratio, rank_pairs, recipes, regression, unpaired
from diffalign.losses.common import empty_moments


def desirable(b: Batch) -> Tensor:
    """The answers above the median of their group, ``(B G,)`` bool."""
    return (b.rewards > b.rewards.median(1, keepdim=True).values).flatten()


def on_samples(loss: Objective) -> Objective:
    """An unpaired loss on all answers."""
    return lambda b: loss((BETA * b.r).flatten(), desirable(b))


def centred(b: Batch) -> Tensor:
    """Four times the rewards without their group's mean, ``(B, G)``."""
    return 4 * (b.rewards - b.rewards.mean(1, keepdim=True))


def best_first(b: Batch) -> Tensor:
    """Implicit rewards of each group, best answer first, ``(B, G)``."""
    return (BETA * b.r).gather(1, listwise.best_first(b.rewards))


def levels(b: Batch) -> Tensor:
    """1 for the best answers of a group, 2 for the others, ``(B, G)``."""
    return torch.where(b.rewards == b.rewards.amax(1, keepdim=True), 1.0, 2.0)


def brain(b: Batch) -> Tensor:
    """Rewards scaled to a range of 4."""
    return recipes.get("brain")(*(values.sum(-1) for values in (b.logp, b.ref, b.old)), 4 * b.rewards)


def rso(b: Batch) -> Tensor:
    """Accepts from the four answers of each group."""
    generator = b.state.setdefault("rso", torch.Generator().manual_seed(0))
    return recipes.get("rso")(b.rewards, b.r, generator=generator, n=2)


def bco(b: Batch) -> Tensor:
    """With the running mean as shift."""
    loss, b.state["bco"] = recipes.get("bco")(b.r.flatten(), desirable(b), b.state.get("bco", empty_moments()))
    return loss


def vpd(b: Batch) -> Tensor:
    """The teacher step; without a critique."""
    teacher, student = b.logp.sum(-1).flatten(), b.old.sum(-1).flatten()
    loss, b.state["vpd"] = recipes.get("vpd")(log_ratio(teacher, student), desirable(b), b.state.get("vpd"))
    return loss


def dapo_direct(b: Batch) -> Tensor:
    """The exact critic: the tokens correct so far, and half of the remaining ones."""
    before = torch.cat([torch.zeros(*b.rewards.shape, 1), correct(b.tokens).cumsum(-1)], -1)
    to_come = torch.arange(LENGTH, -1, -1) / 2
    return recipes.get("dapo-direct")((b.logp - b.ref).flatten(0, 1), (before + to_come).flatten(0, 1))


OBJECTIVES: dict[str, Objective] = {
    "listwise.target_kl": lambda b: listwise.target_kl(BETA * b.r, (4 * b.rewards).softmax(1)),
    "listwise.plackett_luce": lambda b: listwise.plackett_luce(best_first(b)),
    "rank_pairs.pairwise_sum": lambda b: rank_pairs.pairwise_sum(BETA * b.r, b.rewards),
    "rank_pairs.pairwise_mean": lambda b: rank_pairs.pairwise_mean(BETA * b.r, b.rewards),
    "unpaired.logistic": on_samples(unpaired.logistic),
    "unpaired.kto": on_samples(unpaired.kto),
    "unpaired.linear": on_samples(unpaired.linear),
    "regression.regression_loss": lambda b: regression.regression_loss(b.r, centred(b), beta=BETA),
    "lipo": lambda b: recipes.get("lipo")(b.r, b.rewards),
    "rankdpo": lambda b: recipes.get("rankdpo")(b.r, b.rewards, beta=BETA),  # the published one is for images
    "trpa": lambda b: recipes.get("trpa")(b.logp, b.ref, b.old, levels(b)),
    "pro": lambda b: recipes.get("pro")(b.logp, 4 * b.rewards),
    "brain": brain,
    "rso": rso,
    "bco": bco,
    "vpd": vpd,
    "pmpo": lambda b: recipes.get("pmpo")(b.r.flatten(), desirable(b), forward_kl(b).flatten()),
    "dapo-direct": dapo_direct,
}
