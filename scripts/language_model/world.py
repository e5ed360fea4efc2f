"""A language task that a random model of ten thousand parameters learns in seconds: write even, or odd, words.

A prompt is three words, of which the first says which: 0 for even, 1 for odd. The reward of an answer is the share of
its words of that kind, so a random model earns one half, and no answer is good for every prompt.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

WORDS, PROMPT, LENGTH = 18, 3, 6  # vocabulary; words of a prompt, of an answer


def tiny_model(seed: int = 0) -> LlamaForCausalLM:
    """A random causal language model of one layer."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=PROMPT + 2 * LENGTH,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()  # eval: there is no dropout, and ratios of replayed answers are 1


def prompts(n: int, generator: torch.Generator) -> Tensor:
    """Random prompts, half of each kind, ``(n, PROMPT)``."""
    words = torch.randint(2, WORDS, (n, PROMPT), generator=generator)
    words[:, 0] = torch.arange(n) % 2
    return words


@torch.no_grad()
def sample(model: LlamaForCausalLM, asked: Tensor, group: int, generator: torch.Generator) -> Tensor:
    """Draws answers: prompts ``(B, PROMPT)`` to prompts with answers, ``(B, group, PROMPT + LENGTH)``."""
    tokens = asked.repeat_interleave(group, 0)
    for _ in range(LENGTH):
        p = model(input_ids=tokens, use_cache=False, logits_to_keep=1).logits[:, -1].softmax(-1)
        tokens = torch.cat([tokens, torch.multinomial(p, 1, generator=generator)], 1)
    return tokens.unflatten(0, (len(asked), group))


def right(tokens: Tensor) -> Tensor:
    """Which words of an answer are of the kind that its prompt asks for, ``(..., PROMPT + LENGTH)`` to ``(...,
    LENGTH)``, 0 or 1.
    """
    return (tokens[..., PROMPT:] % 2 == tokens[..., :1]).float()


def reward(tokens: Tensor) -> Tensor:
    """Share of an answer's words that are :func:`right`, in [0, 1]; ``(..., PROMPT + LENGTH)`` to ``(...)``."""
    return right(tokens).mean(-1)


def asked_otherwise(tokens: Tensor) -> Tensor:
    """The same answers under the prompt that asks for the other kind; shape kept."""
    first = torch.arange(tokens.shape[-1]) == 0
    return torch.where(first, 1 - tokens, tokens)


def not_told(tokens: Tensor) -> Tensor:
    """The same answers under a prompt that does not say which kind; shape kept."""
    first = torch.arange(tokens.shape[-1]) == 0
    return torch.where(first, WORDS - 1, tokens)
