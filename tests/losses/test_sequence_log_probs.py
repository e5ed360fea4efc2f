"""Log-probs of a language model's tokens are those of its logits, whatever the family, padding or adapter."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffalign.losses.sequence_log_probs import sequence_log_probs

WORDS = 13


def tiny(family: str) -> Any:
    """A random causal model."""
    import transformers as t

    torch.manual_seed(0)
    common = {"vocab_size": WORDS, "bos_token_id": None, "eos_token_id": None}
    if family == "gpt2":
        config = t.GPT2Config(n_embd=8, n_layer=1, n_head=2, n_positions=16, **common)
        return t.GPT2LMHeadModel(config).eval()
    if family == "phi":  # its head has a bias
        config = t.PhiConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, **common)
        model = t.PhiForCausalLM(config).eval()
        nn.init.normal_(model.get_output_embeddings().bias)
        return model
    config = t.LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, **common)
    return t.LlamaForCausalLM(config).eval()


def batch() -> dict[str, Tensor]:
    """Three rows: padded left, padded right, not padded."""
    ids = torch.randint(WORDS, (3, 6), generator=torch.Generator().manual_seed(1))
    attention, completion = torch.ones_like(ids), torch.zeros_like(ids)
    attention[0, :2], attention[1, 4:] = 0, 0
    completion[:, 3:] = 1
    return {"input_ids": ids, "attention_mask": attention, "completion_mask": completion}


def from_logits(model: Any, data: dict[str, Tensor], temperature: float = 1.0) -> Tensor:
    """Each row alone, without its padding."""
    rows = []
    for ids, attention, completion in zip(*data.values(), strict=True):
        inside = attention.bool()
        logits = model(input_ids=ids[inside][None]).logits[0, :-1] / temperature
        each = logits.log_softmax(-1).gather(-1, ids[inside][1:, None])[:, 0] * completion[inside][1:]
        first = int(inside.nonzero()[0, 0])
        rows.append(nn.functional.pad(each, (first, len(ids) - 1 - first - len(each))))
    return torch.stack(rows)


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi"])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_it_is_what_the_logits_say(family: str, temperature: float) -> None:
    model, data = tiny(family), batch()
    found = sequence_log_probs(model, **data, temperature=temperature)
    assert found.shape == (3, 5) and found.dtype == torch.float32
    assert torch.allclose(found, from_logits(model, data, temperature), atol=1e-6)
    assert [(row != 0).sum().item() for row in found] == [3, 1, 3]


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi"])
def test_all_parameters_get_the_gradient_of_the_logits(family: str) -> None:
    model, data = tiny(family), batch()
    parameters = list(model.parameters())
    ours = torch.autograd.grad(sequence_log_probs(model, **data).sum(), parameters, allow_unused=True)
    theirs = torch.autograd.grad(from_logits(model, data).sum(), parameters, allow_unused=True)
    assert any(grad is not None for grad in ours)
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine is None) == (other is None)
        assert mine is None or torch.allclose(mine, other, atol=1e-5)


def test_an_adapter_below_the_head_is_seen() -> None:
    peft = pytest.importorskip("peft")
    model, data = tiny("llama"), batch()
    before = sequence_log_probs(model, **data).detach()
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    found = sequence_log_probs(adapted.eval(), **data)
    assert torch.allclose(found, from_logits(adapted, data), atol=1e-6)
    assert not torch.allclose(found, before, atol=1e-4)
    with adapted.disable_adapter():
        assert torch.allclose(sequence_log_probs(adapted, **data), before, atol=1e-6)


def test_an_adapter_on_the_head_is_refused() -> None:
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(tiny("llama"), peft.LoraConfig(target_modules=["lm_head"]))
    with pytest.raises(ValueError, match="not a plain linear layer"):
        sequence_log_probs(adapted, **batch())


@pytest.mark.parametrize(
    "setting", ["final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier"]
)
def test_logits_that_are_changed_after_the_head_are_refused(setting: str) -> None:
    model = tiny("llama")
    setattr(model.config, setting, 1.0)
    sequence_log_probs(model, **batch())
    setattr(model.config, setting, 30.0)
    with pytest.raises(ValueError, match=rf"\{{'{setting}': 30.0\}}"):
        sequence_log_probs(model, **batch())


def test_masks_of_another_shape_are_refused() -> None:
    data = batch()
    with pytest.raises(ValueError, match=r"completion_mask \(3, 5\)"):
        sequence_log_probs(tiny("llama"), **{**data, "completion_mask": data["completion_mask"][:, 1:]})


def test_the_model_is_reached_by_two_methods_and_its_configuration() -> None:
    """A decoder that has no positions (ALiBi) gets none."""
    head = nn.Linear(2, 4, bias=False)
    nn.init.zeros_(head.weight)
    seen: dict[str, Any] = {}

    def decoder(**given: Any) -> tuple[Tensor]:
        seen.update(given)
        return (torch.ones(3, 6, 2),)

    model = SimpleNamespace(
        get_decoder=lambda: decoder, get_output_embeddings=lambda: head, config=SimpleNamespace(logit_scale=None)
    )
    data = batch() | {"input_ids": torch.full((3, 6), 3)}
    found = sequence_log_probs(model, **data)
    assert found[2].tolist() == pytest.approx([0, 0, *[-1.3862943611] * 3])
    assert set(seen) == {"input_ids", "attention_mask", "use_cache"} and seen["use_cache"] is False
