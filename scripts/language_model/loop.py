"""Two plain loops: preferences on answers sampled once from the reference, policy gradient on fresh answers."""

from __future__ import annotations

import copy
import functools
from typing import Any, NamedTuple

import torch
from batch import Batch, Objective, log_probs
from torch import Tensor
from transformers import LlamaForCausalLM
from world import prompts, reward, sample, tiny_model

from diffalign.losses import preference_metrics
from diffalign.losses.rank_pairs import ordered_pairs

BATCH, GROUP, LEARNING_RATE = 16, 4, 1e-2
HELD_OUT = 64  # prompts
UPDATES = 3  # per rollout, so that ratios differ from 1


class Result(NamedTuple):
    """The figure that training should raise, before and after, and the loss at each step."""

    before: float
    after: float
    losses: list[float]


@functools.lru_cache(maxsize=4)
def reference_answers(seed: int, steps: int) -> list[tuple[Tensor, Tensor]]:
    """A data set of one batch per step, sampled from the reference: tokens and their log-probs under it."""
    model, generator = tiny_model(seed), torch.Generator().manual_seed(seed)
    tokens = [sample(model, prompts(BATCH, generator), GROUP, generator) for _ in range(steps)]
    with torch.no_grad():
        return [(t, log_probs(model, t)) for t in tokens]


class Learner:
    """A policy, the reference it starts from, and its optimiser."""

    def __init__(self, objective: Objective, seed: int) -> None:
        self.objective = objective
        self.reference = tiny_model(seed).requires_grad_(False)
        self.policy = copy.deepcopy(self.reference).requires_grad_(True)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), LEARNING_RATE, fused=True)
        self.state: dict[str, Any] = {}

    def update(self, tokens: Tensor, old: Tensor, ref: Tensor) -> float:
        """One optimiser step; returns the loss."""
        logp = log_probs(self.policy, tokens)
        batch = Batch(tokens, logp, old, ref, self.policy, self.reference, self.state)
        loss = self.objective(batch).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


@functools.lru_cache(maxsize=4)
def held_out(seed: int) -> tuple[Tensor, Tensor]:
    """Answers of the reference to held-out prompts, and their log-probs under it."""
    model, generator = tiny_model(seed), torch.Generator().manual_seed(1000 + seed)
    tokens = sample(model, prompts(HELD_OUT, generator), GROUP, generator)
    with torch.no_grad():
        return tokens, log_probs(model, tokens)


@torch.no_grad()
def accuracy(policy: LlamaForCausalLM, seed: int) -> float:
    """Share of held-out pairs that the implicit reward orders as the reward does; ties count one half."""
    tokens, ref = held_out(seed)
    r = (log_probs(policy, tokens) - ref).sum(-1)
    prompt, better, worse = ordered_pairs(reward(tokens)).nonzero(as_tuple=True)
    return preference_metrics(r[prompt, better], r[prompt, worse])["accuracy"].item()


def mean_reward(policy: LlamaForCausalLM, seed: int) -> float:
    """Mean reward of the policy's answers to held-out prompts."""
    generator = torch.Generator().manual_seed(1000 + seed)
    return reward(sample(policy, prompts(HELD_OUT, generator), 2 * GROUP, generator)).mean().item()


def train_preference(objective: Objective, *, steps: int, seed: int) -> Result:
    """Offline, on :func:`reference_answers`; the figure is the implicit :func:`accuracy`."""
    learner = Learner(objective, seed)
    before = accuracy(learner.policy, seed)
    losses = [learner.update(tokens, ref, ref) for tokens, ref in reference_answers(seed, steps)]
    return Result(before, accuracy(learner.policy, seed), losses)


def train_policy(objective: Objective, *, steps: int, seed: int) -> Result:
    """Online, each rollout used :data:`UPDATES` times; the figure is the :func:`mean_reward`."""
    learner, generator = Learner(objective, seed), torch.Generator().manual_seed(seed)
    before, losses = mean_reward(learner.policy, seed), []
    while len(losses) < steps:
        tokens = sample(learner.policy, prompts(BATCH, generator), GROUP, generator)
        with torch.no_grad():
            old, ref = log_probs(learner.policy, tokens), log_probs(learner.reference, tokens)
        losses += [learner.update(tokens, old, ref) for _ in range(min(UPDATES, steps - len(losses)))]
    return Result(before, mean_reward(learner.policy, seed), losses)
