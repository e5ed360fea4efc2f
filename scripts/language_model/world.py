"""A language task that a random model of ten thousand parameters learns in seconds: generate even, or odd, tokens.

A prompt is three tokens, the first selects the task: 0 for even, 1 for odd. The reward of an answer is the share of its
correct tokens: one half for a random model, and no answer is correct for every prompt.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY, PROMPT, LENGTH = 18, 3, 6  # vocabulary; tokens of a prompt, of an answer


def tiny_model(seed: int = 0) -> LlamaForCausalLM:
    """A random causal language model of one layer."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=PROMPT + 2 * LENGTH,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()  # eval: no dropout, so that ratios of replayed answers are 1


def prompts(n: int, generator: torch.Generator) -> Tensor:
    """Random prompts, half of each kind, ``(n, PROMPT)``."""
    tokens = torch.randint(2, VOCABULARY, (n, PROMPT), generator=generator)
    tokens[:, 0] = torch.arange(n) % 2
    return tokens


@torch.no_grad()
def sample(model: LlamaForCausalLM, asked: Tensor, group: int, generator: torch.Generator) -> Tensor:
    """Samples answers: prompts ``(B, PROMPT)`` to prompts with answers, ``(B, group, PROMPT + LENGTH)``."""
    tokens = asked.repeat_interleave(group, 0)
    for _ in range(LENGTH):
        p = model(input_ids=tokens, use_cache=False, logits_to_keep=1).logits[:, -1].softmax(-1)
        tokens = torch.cat([tokens, torch.multinomial(p, 1, generator=generator)], 1)
    return tokens.unflatten(0, (len(asked), group))


def correct(tokens: Tensor) -> Tensor:
    """The correct tokens of an answer under its prompt, ``(..., PROMPT + LENGTH)`` to ``(...,
    LENGTH)``, 0 or 1.
    """
    return (tokens[..., PROMPT:] % 2 == tokens[..., :1]).float()


def reward(tokens: Tensor) -> Tensor:
    """Share of :func:`correct` tokens of an answer, in [0, 1]; ``(..., PROMPT + LENGTH)`` to ``(...)``."""
    return correct(tokens).mean(-1)


def flipped_prompts(tokens: Tensor) -> Tensor:
    """The same answers under the prompt of the other task; same shape."""
    first = torch.arange(tokens.shape[-1]) == 0
    return torch.where(first, 1 - tokens, tokens)


def hidden_prompts(tokens: Tensor) -> Tensor:
    """The same answers under a prompt without its task token; same shape."""
    first = torch.arange(tokens.shape[-1]) == 0
    return torch.where(first, VOCABULARY - 1, tokens)
