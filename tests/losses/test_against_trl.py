"""Our losses and TRL's own trainers on the same batch: the same numbers and the same gradients; and our adapter trains.

Skipped where TRL is not installed. Run with TRL 1.16.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from diffalign.losses import (
    distillation,
    log_ratio,
    masked_const,
    masked_mean,
    masked_seq_mean,
    policy,
    preference,
    ratio_links,
    recipes,
    regression,
    regularizers,
    unpaired,
)
from diffalign.losses.trl_dpo import Pairs, with_objective

trl = pytest.importorskip("trl", reason="TRL is not installed")
datasets = pytest.importorskip("datasets")
BETA = 0.3
ROWS = [
    {"prompt": "a b", "chosen": " c d e", "rejected": " e"},
    {"prompt": "b", "chosen": " a", "rejected": " d c a b"},
    {"prompt": "c c a", "chosen": " e e", "rejected": " b d"},
    {"prompt": "d", "chosen": " b c", "rejected": " a a"},
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *"abcde"])}
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=32
    )


def tiny(seed: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=8, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        bos_token_id=None, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config)


@pytest.fixture
def make(tokenizer: Any, tmp_path: Any) -> Callable[..., Any]:
    """Makes a DPO trainer, TRL's or one with our objective."""

    def make(trainer: Any = trl.DPOTrainer, *, peft: Any = None, **settings: Any) -> Any:
        common = {"output_dir": str(tmp_path), "report_to": [], "use_cpu": True, "bf16": False, "beta": BETA}
        args = trl.DPOConfig(**{**common, "per_device_train_batch_size": 4, **settings})
        return trainer(
            model=tiny(0), ref_model=None if peft else tiny(1), args=args, peft_config=peft,
            train_dataset=datasets.Dataset.from_list(ROWS), processing_class=tokenizer,
        )  # fmt: skip

    return make


def loss_and_gradient(trainer: Any) -> tuple[Tensor, Tensor]:
    """On the first batch, models as they are made."""
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    trainer.model.eval()
    loss = trainer.compute_loss(trainer.model, batch)
    named = [p for p in trainer.model.parameters() if p.requires_grad]
    return loss.detach(), torch.cat([g.flatten() for g in torch.autograd.grad(loss, named)])


def z(p: Pairs) -> Tensor:
    return preference.pair_margin(p.r_w, p.r_l, beta=BETA)


def means(p: Pairs) -> tuple[Tensor, Tensor]:
    """TRL's IPO and its normalised DPO take means over the answers' tokens."""
    return p.r_w / p.mask_w.sum(1), p.r_l / p.mask_l.sum(1)


def linked(link: Callable[[Tensor], Tensor]) -> Callable[[Pairs], Tensor]:
    return lambda p: preference.logistic(preference.pair_margin(link(p.r_w), link(p.r_l), beta=BETA))


def both(loss: Callable[..., Tensor]) -> Callable[[Pairs], Tensor]:
    """An unpaired loss on chosen and rejected answers, added."""

    def objective(p: Pairs) -> Tensor:
        good = torch.ones_like(p.r_w).bool()
        return loss(BETA * p.r_w, good) + loss(BETA * p.r_l, ~good)

    return objective


def sppo(p: Pairs) -> Tensor:
    half = torch.full_like(p.r_w, 0.5 / BETA)
    return regression.regression_loss(p.r_w, half) + regression.regression_loss(p.r_l, -half)


PAIR_LOSSES: dict[str, tuple[dict[str, Any], Callable[[Pairs], Tensor]]] = {
    "sigmoid": ({}, lambda p: recipes.get("dpo")(p.r_w, p.r_l, beta=BETA)),
    "hinge": ({"loss_type": "hinge"}, lambda p: preference.hinge(z(p))),
    "ipo": ({"loss_type": "ipo"}, lambda p: recipes.get("ipo")(*means(p), tau=BETA)),
    "sigmoid_norm": ({"loss_type": "sigmoid_norm"}, lambda p: recipes.get("dpo")(*means(p), beta=BETA)),
    "robust": (
        {"loss_type": "robust", "label_smoothing": 0.2},
        lambda p: recipes.get("rdpo-robust")(p.r_w, p.r_l, beta=BETA, flip=0.2),
    ),
    "bco_pair": ({"loss_type": "bco_pair"}, both(unpaired.logistic)),
    "apo_zero": ({"loss_type": "apo_zero"}, both(unpaired.kto)),
    "sppo_hard": ({"loss_type": "sppo_hard"}, sppo),
    "js": ({"f_divergence_type": "js_divergence"}, linked(ratio_links.js_link)),
    "forward_kl": ({"f_divergence_type": "forward_kl"}, linked(partial(ratio_links.power_link, alpha=1.0))),
    "alpha": (
        {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.4},
        linked(partial(ratio_links.power_link, alpha=0.6)),  # 1 minus theirs
    ),
}


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_pair_losses(make: Callable[..., Any], name: str) -> None:
    settings, objective = PAIR_LOSSES[name]
    theirs, their_gradient = loss_and_gradient(make(**settings))
    ours, our_gradient = loss_and_gradient(make(with_objective(trl.DPOTrainer, objective)))
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert their_gradient.abs().max() > 1e-4
    assert torch.allclose(our_gradient, their_gradient, rtol=1e-3, atol=1e-6)


def test_the_adapter_trains_a_model(make: Callable[..., Any]) -> None:
    objective = lambda p: recipes.get("simpo")(p.logp_w, p.logp_l, mask_w=p.mask_w, mask_l=p.mask_l)  # noqa: E731
    trainer = make(with_objective(trl.DPOTrainer, objective), max_steps=15, learning_rate=1e-2, logging_steps=1)
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "rewards/margins" in entry]
    assert logs[-1]["loss"] < logs[0]["loss"] - 0.5
    assert logs[-1]["rewards/margins"] > logs[0]["rewards/margins"] + 0.5
    assert trainer.evaluate(datasets.Dataset.from_list(ROWS))["eval_loss"] < logs[0]["loss"] - 0.5


def test_the_reference_of_an_adapter_is_the_model_below(make: Callable[..., Any]) -> None:
    peft = pytest.importorskip("peft")
    config = partial(peft.LoraConfig, target_modules=["q_proj", "v_proj"], r=2, init_lora_weights=False)
    theirs, _ = loss_and_gradient(make(peft=config()))
    torch.manual_seed(0)
    seen: list[Pairs] = []
    trainer = make(with_objective(trl.DPOTrainer, lambda p: (seen.append(p), z(p))[1]), peft=config())
    loss_and_gradient(trainer)
    (found,) = seen
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    with torch.no_grad(), trainer.model.disable_adapter():
        logits = trainer.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    below = logits[:, :-1].log_softmax(-1).gather(-1, batch["input_ids"][:, 1:, None])[..., 0]
    assert torch.allclose(torch.cat([found.ref_w, found.ref_l]), below * batch["completion_mask"][:, 1:], atol=1e-5)
    assert not torch.allclose(found.ref_w, found.logp_w, atol=1e-3)


def test_precomputed_references_give_the_same_loss(make: Callable[..., Any]) -> None:
    trainer = with_objective(trl.DPOTrainer, lambda p: preference.logistic(z(p)))
    whole, parts = loss_and_gradient(make(trainer)), loss_and_gradient(make(trainer, precompute_ref_log_probs=True))
    assert whole[0].item() == pytest.approx(parts[0].item(), rel=1e-5)
    assert torch.allclose(whole[1], parts[1], atol=1e-6)


def test_settings_of_its_own_losses_are_refused(make: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="loss_type=.*leave it at"):
        make(with_objective(trl.DPOTrainer, z), loss_type="ipo")


@pytest.mark.parametrize("alpha", [0.0, 0.25])
def test_simpo_and_alphapo(alpha: float) -> None:
    from trl.experimental.cpo import CPOTrainer

    settings = SimpleNamespace(
        alpha=alpha, beta=2.5, simpo_gamma=0.4, label_smoothing=0.0, loss_type="simpo",
        accelerator=SimpleNamespace(device="cpu"),
    )  # fmt: skip
    logp = torch.tensor([[-0.4, -1.3, -2.2], [-0.9, -0.2, -3.1]])
    theirs = CPOTrainer.cpo_loss(settings, *logp)[0]
    name, more = ("alphapo", {"alpha": alpha}) if alpha else ("simpo", {})
    assert torch.allclose(recipes.get(name)(*logp, beta=2.5, gamma=0.4, **more), theirs, atol=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_distillation(beta: float) -> None:
    from trl.experimental.gkd import GKDTrainer

    student, teacher = torch.randn(2, 2, 3, 5, generator=torch.Generator().manual_seed(0))
    theirs = GKDTrainer.generalized_jsd_loss(student, teacher, beta=beta, reduction="none").sum(-1)
    assert torch.allclose(distillation.jsd(student, teacher, beta=beta), theirs, atol=1e-6)


@pytest.mark.parametrize(
    ("loss_type", "reduce"),
    [("grpo", masked_seq_mean), ("bnpo", masked_mean), ("dr_grpo", partial(masked_const, norm=3 * 4))],
)
def test_policy_clip_and_kl(tokenizer: Any, tmp_path: Any, loss_type: str, reduce: Callable[..., Tensor]) -> None:
    args = trl.GRPOConfig(
        output_dir=str(tmp_path), report_to=[], use_cpu=True, bf16=False, beta=0.0, epsilon=0.1, epsilon_high=0.3,
        num_generations=2, per_device_train_batch_size=2, max_completion_length=4, loss_type=loss_type,
        use_bias_correction_kl=False,  # times the ratio otherwise
    )  # fmt: skip
    trainer = trl.GRPOTrainer(
        model=tiny(0), reward_funcs=lambda completions, **_: [0.0] * len(completions), args=args,
        train_dataset=datasets.Dataset.from_list([{"prompt": "a"}] * 2), processing_class=tokenizer,
    )  # fmt: skip
    trainer.beta = 0.2  # set late: at the start it would look for the reference on the hub
    trainer.model.eval()
    ids = torch.randint(3, 8, (3, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])
    with torch.no_grad():
        logp = trainer.model(ids).logits[:, 2:-1].log_softmax(-1).gather(-1, ids[:, 3:, None])[..., 0]
    logp.requires_grad_()
    noise = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(2)) * 0.3
    old, ref, adv = logp.detach() + noise[0], logp.detach() + noise[1], torch.tensor([1.0, -0.7, 0.4])
    inputs = {
        "prompt_ids": ids[:, :3], "prompt_mask": torch.ones(3, 3).long(), "completion_ids": ids[:, 3:],
        "completion_mask": mask, "advantages": adv, "old_per_token_logps": old, "ref_per_token_logps": ref,
    }  # fmt: skip
    theirs = trainer._compute_loss(trainer.model, inputs)
    surrogate = policy.clip(logp - old, adv, eps_low=0.1, eps_high=0.3, mask=mask)
    ours = reduce(surrogate + 0.2 * regularizers.k3(logp - ref), mask)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert log_ratio(logp, old, mask=mask).abs().max() > 0.1  # some ratios are beyond the clip range
