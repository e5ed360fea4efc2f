"""Objectives of ours in TRL's trainer: what they see is what the models say, and what is trained is their mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffalign.losses import recipes
from diffalign.losses.trl_dpo import Pairs, check_settings, pairs, token_log_probs, with_objective

WORDS = 7


class Model(nn.Module):
    """A bigram model that answers as TRL's models do: with logits, or with log-probs alone."""

    def __init__(self, seed: int, *, fused: bool = False) -> None:
        super().__init__()
        weight = torch.randn(WORDS, WORDS, generator=torch.Generator().manual_seed(seed))
        self.table, self.fused = nn.Parameter(weight), fused

    def forward(self, input_ids: Tensor) -> SimpleNamespace:
        logits = self.table[input_ids]
        if not self.fused:
            return SimpleNamespace(logits=logits)
        each = logits[:, :-1].log_softmax(-1).gather(-1, input_ids[:, 1:, None])[..., 0]
        return SimpleNamespace(log_probs=each)


@dataclass
class Config:
    loss_type: list[str] = field(default_factory=lambda: ["sigmoid"])
    loss_weights: list[float] | None = None
    label_smoothing: float = 0.0
    f_divergence_type: str = "reverse_kl"
    ld_alpha: float | None = None
    use_weighting: bool = False
    beta: float = 0.1


class Trainer:
    """TRL's trainer as far as the adapter sees it: the policy runs, then the reference; its loss is another."""

    aux_loss_enabled = False
    passes = 2

    def __init__(self, model: Model, ref_model: Model | None, args: Config | None = None) -> None:
        self.model, self.ref_model, self.args = model, ref_model, args or Config()

    def compute_loss(
        self, model: Model, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        outputs = model(inputs["input_ids"])
        if "ref_chosen_logps" not in inputs and self.passes > 1:
            with torch.no_grad():
                (self.ref_model or self.model)(inputs["input_ids"])
        loss = outputs.log_probs.sum() if model.fused else outputs.logits.sum()
        return (loss, "outputs") if return_outputs else loss


def batch() -> dict[str, Tensor]:
    """Two pairs, chosen first, answers of two and three tokens."""
    ids = torch.randint(WORDS, (4, 5), generator=torch.Generator().manual_seed(3))
    mask = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 1, 1, 0], [0, 0, 1, 1, 0], [0, 0, 1, 1, 1]])
    return {"input_ids": ids, "completion_mask": mask}


def by_hand(model: Model, data: dict[str, Tensor]) -> Tensor:
    """Log-probs of the answers' tokens, one by one."""
    out = torch.zeros(4, 4)
    for row, (ids, mask) in enumerate(zip(data["input_ids"], data["completion_mask"], strict=True)):
        for t in range(1, 5):
            if mask[t]:
                p = model.table[ids[t - 1]].softmax(0)[ids[t]]
                out[row, t - 1] = p.log()
    return out


@pytest.mark.parametrize("fused", [False, True])
def test_it_sees_policy_and_reference(fused: bool) -> None:
    model, reference, data, seen = Model(1, fused=fused), Model(2, fused=fused), batch(), []
    trainer = with_objective(Trainer, lambda p: (seen.append(p), p.logp_w.sum(1))[1])(model, reference)
    loss = trainer.compute_loss(model, data)
    (found,) = seen
    policy, ref = by_hand(model, data), by_hand(reference, data)
    for ours, want in (
        (found.logp_w, policy[:2]),
        (found.logp_l, policy[2:]),
        (found.ref_w, ref[:2]),
        (found.ref_l, ref[2:]),
    ):
        assert torch.allclose(ours, want, atol=1e-6)
    assert found.mask_w.tolist() == data["completion_mask"][:2, 1:].bool().tolist()
    assert found.mask_l.tolist() == data["completion_mask"][2:, 1:].bool().tolist()
    assert torch.allclose(found.r_w, (policy - ref)[:2].sum(1), atol=1e-6)
    assert torch.allclose(found.r_l, (policy - ref)[2:].sum(1), atol=1e-6)
    assert torch.allclose(loss, policy[:2].sum(1).mean(), atol=1e-6)


@pytest.mark.parametrize("fused", [False, True])
def test_the_gradient_is_that_of_our_mean(fused: bool) -> None:
    model, reference, data = Model(1, fused=fused), Model(2, fused=fused), batch()
    trainer = with_objective(Trainer, lambda p: recipes.get("dpo")(p.r_w, p.r_l, beta=0.7))(model, reference)
    trainer.compute_loss(model, data).backward()
    found = model.table.grad
    model.table.grad = None
    gap = 0.7 * (by_hand(model, data) - by_hand(reference, data).detach()).sum(1)
    (1 + (gap[2:] - gap[:2]).exp()).log().mean().backward()
    assert torch.allclose(found, model.table.grad, atol=1e-6)
    assert reference.table.grad is None


def test_an_adapter_has_no_reference_of_its_own() -> None:
    model, data = Model(1), batch()
    trainer = with_objective(Trainer, lambda p: p.r_w)(model, None)
    loss = trainer.compute_loss(model, data)
    assert loss.item() == pytest.approx(0, abs=1e-6) and loss.requires_grad


def test_precomputed_references_are_sums() -> None:
    model, data = Model(1), batch()
    sums = {"ref_chosen_logps": torch.tensor([-1.0, -2.0]), "ref_rejected_logps": torch.tensor([-3.0, -5.0])}
    trainer = with_objective(Trainer, lambda p: p.r_w - p.r_l)(model, None)
    policy = by_hand(model, data).sum(1)
    want = (policy[:2] + torch.tensor([1.0, 2.0]) - policy[2:] - torch.tensor([3.0, 5.0])).mean()
    assert torch.allclose(trainer.compute_loss(model, data | sums), want, atol=1e-6)


def test_outputs_are_handed_on_and_no_hook_stays() -> None:
    model, reference, data = Model(1), Model(2), batch()
    trainer = with_objective(Trainer, lambda p: p.r_w)(model, reference)
    loss, outputs = trainer.compute_loss(model, data, return_outputs=True)
    assert outputs == "outputs" and loss.ndim == 0
    assert not model._forward_hooks and not reference._forward_hooks
    assert type(trainer).__name__ == "TrainerWithObjective" and isinstance(trainer, Trainer)


def test_hooks_go_when_the_trainer_fails() -> None:
    model = Model(1)
    trainer = with_objective(Trainer, lambda p: p.r_w)(model, None)
    with pytest.raises(IndexError):
        trainer.compute_loss(model, {**batch(), "input_ids": torch.full((4, 5), WORDS)})
    assert not model._forward_hooks


def test_a_missing_pass_is_an_error() -> None:
    made = with_objective(type("Liger", (Trainer,), {"passes": 1}), lambda p: p.r_w)(Model(1), None)
    with pytest.raises(ValueError, match="ran 1 forward passes.*use_liger_kernel"):
        made.compute_loss(made.model, batch())
    with pytest.raises(ValueError, match="ran 0 forward passes"):
        pairs([], batch() | {"ref_chosen_logps": torch.zeros(2)})
    with pytest.raises(ValueError, match="neither log_probs nor logits"):
        token_log_probs(SimpleNamespace(), torch.zeros(1, 2).long(), torch.ones(1, 1))


def test_later_passes_are_not_looked_at() -> None:
    seen = [torch.full((4, 4), float(i)) for i in range(3)]
    found = pairs(seen, batch())
    assert found.logp_w.unique().item() == 0 and found.ref_l.unique().item() == 1
    sums = {"ref_chosen_logps": torch.ones(2), "ref_rejected_logps": torch.zeros(2)}
    assert pairs(seen, batch() | sums).ref_w.tolist() == [1, 1]


def test_the_halves_of_three_pairs_are_three_each() -> None:
    seen = [torch.arange(6.0)[:, None] + start for start in (0, 10)]
    found = pairs(seen, {"completion_mask": torch.tensor([[0, 1]] * 3 + [[1, 0]] * 3)})
    assert [x[:, 0].tolist() for x in found[:4]] == [[0, 1, 2], [3, 4, 5], [10, 11, 12], [13, 14, 15]]
    assert found.mask_w.all() and not found.mask_l.any() and found.mask_l.shape == (3, 1)


def test_references_carry_no_gradient() -> None:
    live = torch.zeros(4, 4, requires_grad=True)
    found = pairs([torch.zeros(4, 4), live], batch())
    assert not found.ref_w.requires_grad and not found.ref_l.requires_grad


def test_virtual_tokens_in_front_are_left_out() -> None:
    model, data = Model(1), batch()
    mask, ids = data["completion_mask"][:, 1:], data["input_ids"]
    want = token_log_probs(model(ids), ids, mask)
    longer = torch.cat([torch.full((4, 2, WORDS), 9.0), model(ids).logits], 1)
    assert torch.equal(token_log_probs(SimpleNamespace(logits=longer), ids, mask), want)
    early = torch.cat([torch.full((4, 2), -9.0), want], 1)
    assert torch.equal(token_log_probs(SimpleNamespace(log_probs=early), ids, mask), want)


def test_half_precision_is_widened_before_the_sum() -> None:
    ids, mask = torch.tensor([[0, 1]]), torch.ones(1, 1)
    logits = torch.tensor([[[0.0, 0.0], [0.0, 0.0]]], dtype=torch.bfloat16)
    found = token_log_probs(SimpleNamespace(logits=logits), ids, mask)
    assert found.dtype == torch.float32 and found.item() == pytest.approx(-0.6931472, abs=1e-7)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("loss_type", ["ipo"]),
        ("loss_weights", [1.0]),
        ("label_smoothing", 0.1),
        ("f_divergence_type", "js_divergence"),
        ("ld_alpha", 0.5),
        ("use_weighting", True),
    ],
)
def test_settings_that_would_do_nothing_are_refused(name: str, value: Any) -> None:
    check_settings(Config(beta=0.3))
    with pytest.raises(ValueError, match=f"{name}=.*leave it at"):
        with_objective(Trainer, lambda p: p.r_w)(Model(1), None, Config(**{name: value}))


def test_experts_are_refused() -> None:
    with pytest.raises(ValueError, match="router_aux_loss_coef=0.0"):
        with_objective(type("Moe", (Trainer,), {"aux_loss_enabled": True}), lambda p: p.r_w)(Model(1), None)


def test_pairs_sum_what_is_per_token() -> None:
    each = torch.tensor([[1.0, 2.0]])
    found = Pairs(each, 2 * each, torch.tensor([0.5]), each, each, each)
    assert found.r_w.item() == 2.5 and found.r_l.item() == 3.0
