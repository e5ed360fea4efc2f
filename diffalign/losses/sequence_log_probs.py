"""Log-probs of the tokens of a causal language model, the input of most objectives.

The model follows the interface of transformers: ``get_decoder()`` (the layers below the output embedding),
``get_output_embeddings()`` (a linear layer) and ``config``. transformers itself is not imported.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from diffalign.losses.checks import check_same_shape
from diffalign.losses.linear_log_prob import linear_log_prob

# Transforms of the logits after the linear layer in some model families, by configuration key.
AFTER_THE_HEAD = (
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "lm_head_multiplier",
    "output_multiplier",
)


def _head(model: Any) -> nn.Linear:
    """The output embedding, if the logits are a linear map of the hidden states."""
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear:
        raise ValueError(
            f"the output embedding is a {type(head).__name__}, not a plain linear layer (an adapter on it?); "
            "take log-probs from the model's logits instead"
        )
    changes = {name: getattr(model.config, name, None) for name in AFTER_THE_HEAD}
    changes = {name: value for name, value in changes.items() if value not in (None, 1)}
    if changes:
        raise ValueError(f"this model changes its logits after the head ({changes}); take log-probs from its logits")
    return head


def _positions(decoder: Any, attention_mask: Tensor) -> dict[str, Tensor]:
    """Position ids that start at each row's first token, for decoders that take them (ALiBi models read the mask)."""
    forward = decoder.forward if isinstance(decoder, nn.Module) else decoder
    if "position_ids" not in inspect.signature(forward).parameters:
        return {}
    return {"position_ids": (attention_mask.long().cumsum(1) - 1).clamp(min=0)}


def sequence_log_probs(
    model: Any, input_ids: Tensor, attention_mask: Tensor, completion_mask: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """Return the log-prob of each token given those before it, ``(B, T - 1)`` fp32 in nats, without the full logits.

    Entry t belongs to token t + 1, so its mask is ``completion_mask[:, 1:]``; 0 outside. Reduce with
    :func:`~diffalign.losses.log_ratio` or ``sum(1)``. Call it under ``torch.no_grad()`` for a reference. It bypasses
    the model's ``forward``: under FSDP or DDP call it inside the wrapped module's forward.

    Args:
        model: a causal language model of transformers, bare or with a PEFT adapter below its head.
        input_ids: ``(B, T)`` prompt and completion, padded on either side; positions start at the first token.
        attention_mask: ``(B, T)``, 1 for tokens, 0 for padding.
        completion_mask: ``(B, T)``, 1 for the tokens of the completion.
        temperature: that of sampling, > 0.

    Raises:
        ValueError: shapes differ, or the logits are not a linear map of the hidden states.
    """
    check_same_shape(input_ids=input_ids, attention_mask=attention_mask, completion_mask=completion_mask)
    head = _head(model)
    decoder = model.get_decoder()
    positions = _positions(decoder, attention_mask)
    hidden = decoder(input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **positions)[0]
    chosen = (completion_mask * attention_mask)[:, 1:].bool()
    labels = torch.where(chosen, input_ids[:, 1:], -100)  # ignored by linear_log_prob
    return linear_log_prob(hidden[:, :-1], head.weight, labels, bias=head.bias, temperature=temperature)
