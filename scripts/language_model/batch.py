"""Inputs of an objective: the answers of a batch, their rewards, and log-probs under policy and reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaForCausalLM
from world import LENGTH, reward

from diffalign.losses.sequence_log_probs import sequence_log_probs


def log_probs(model: LlamaForCausalLM, tokens: Tensor) -> Tensor:
    """Log-probs of the answers' tokens, ``(B, G, any + LENGTH)`` to ``(B, G, LENGTH)``, in nats."""
    flat = tokens.flatten(0, 1)
    answer = (torch.arange(flat.shape[1]) >= flat.shape[1] - LENGTH).long().expand_as(flat)
    out = sequence_log_probs(model, flat, torch.ones_like(flat), answer)
    return out[:, -LENGTH:].unflatten(0, tokens.shape[:2])


def distributions(model: LlamaForCausalLM, tokens: Tensor) -> Tensor:
    """Log-probs of the vocabulary at each position of the answers, ``(B, G, LENGTH, VOCABULARY)``."""
    logits = model(input_ids=tokens.flatten(0, 1), use_cache=False).logits
    return logits[:, -LENGTH - 1 : -1].log_softmax(-1).unflatten(0, tokens.shape[:2])


@dataclass
class Batch:
    """A batch: B prompts, G answers each, T tokens of an answer; all log-probs in nats."""

    tokens: Tensor  # (B, G, PROMPT + T)
    logp: Tensor  # (B, G, T), of the policy, the only tensor with a gradient
    old: Tensor  # (B, G, T), of the policy that sampled the answers
    ref: Tensor  # (B, G, T), of the reference
    policy: LlamaForCausalLM
    reference: LlamaForCausalLM
    state: dict[str, Any] = field(default_factory=dict)  # running statistics of objectives

    def __post_init__(self) -> None:
        """Scores the answers."""
        self.rewards = reward(self.tokens)  # (B, G)

    @property
    def r(self) -> Tensor:
        """Summed log-ratios to the reference, ``(B, G)``."""
        return (self.logp - self.ref).sum(-1)

    @property
    def x(self) -> Tensor:
        """Log-ratio of each token to the policy that sampled it, ``(B G, T)``."""
        return (self.logp - self.old).flatten(0, 1)

    def winner(self, values: Tensor) -> Tensor:
        """Entries of ``values (B, G, ...)`` at the answer with the largest reward, ``(B, ...)``."""
        return values[torch.arange(len(values)), self.rewards.argmax(1)]

    def loser(self, values: Tensor) -> Tensor:
        """Entries of ``values (B, G, ...)`` at the answer with the smallest reward, ``(B, ...)``."""
        return values[torch.arange(len(values)), self.rewards.argmin(1)]

    def log_ratios(self, tokens: Tensor) -> Tensor:
        """Log-ratios to the reference of the tokens of other sequences ``(B, G, any + T)``, ``(B, G, T)``."""
        with torch.no_grad():
            ref = log_probs(self.reference, tokens)
        return log_probs(self.policy, tokens) - ref

    def full_log_probs(self) -> tuple[Tensor, Tensor]:
        """Log-probs of the vocabulary under policy and reference, ``(B, G, T, VOCABULARY)`` each."""
        with torch.no_grad():
            ref = distributions(self.reference, self.tokens)
        return distributions(self.policy, self.tokens), ref


Objective = Callable[[Batch], Tensor]
