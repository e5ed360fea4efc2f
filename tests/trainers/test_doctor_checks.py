"""Each check of the full doctor is seen to fail on a run that is broken on purpose, and to put back what it moved."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import torch

from diffalign.models import prompt_cache, trainable
from diffalign.rewards.text_features import TextFeatures
from diffalign.trainers import preflight
from diffalign.trainers.checks import dry_run, saved
from diffalign.trainers.checks.embeddings import embed_all, embedded_once, no_encoder_left
from tests.tiny_pipelines import tiny_sd3
from tests.trainers.small_runs import disturb, events, same, snapshot

RESUME, IMAGES = "resume changes the run and restores it", "the saved LoRA reloads to the same images"
PLAIN = "a plain pipeline call equals the rollout"
ONCE, LEFT, AVERAGES = (
    "prompts and references are embedded once",
    "no text encoder is left on the device",
    "averaged weights move",
)


def failed(trainer):
    return {check.name: check for check in preflight(trainer, full=True) if not check.passed}


# --- resume -----------------------------------------------------------------------------------------------------------


def forgetting(monkeypatch, trainer, forget):
    """`forget` restores in the place of the trainer, when a checkpoint was loaded."""
    real, loaded, load = trainer.restore, [], dry_run.load_checkpoint

    def load_checkpoint(path):
        loaded.append(1)
        return load(path)

    def restore(weights, tensors, state):
        if loaded:
            loaded.clear()
            forget(real, weights, tensors, state)
        else:
            real(weights, tensors, state)

    monkeypatch.setattr(dry_run, "load_checkpoint", load_checkpoint)
    monkeypatch.setattr(trainer, "restore", restore)


def test_a_resume_that_loads_nothing(make, monkeypatch):
    trainer = make()
    forgetting(monkeypatch, trainer, lambda real, *snapshot: None)
    check = failed(trainer)[RESUME]
    assert check.figure.startswith("0 of ")


@pytest.mark.parametrize("part", ["weights", "optimisation", "counters"])
def test_a_resume_that_forgets_a_part(make, monkeypatch, part):
    trainer = make(ema_decay=0.5)

    def forget(real, weights, tensors, state):
        before = json.loads(json.dumps(vars(trainer.state)))
        kept = trainer.optimisation.state_dict() if part == "optimisation" else None
        own = dry_run.trainable_state(trainer.policy)
        real(weights, tensors, state)
        if part == "weights":
            trainable.load_trainable_state(trainer.policy, own)
        elif part == "optimisation":
            trainer.optimisation.load_state_dict(kept)
        else:
            vars(trainer.state).update(before)

    forgetting(monkeypatch, trainer, forget)
    check = failed(trainer)[RESUME]
    assert {"weights": "weights/", "optimisation": "tensors/optimisation", "counters": "state/trainer/step"}[
        part
    ] in check.figure


# --- averages ---------------------------------------------------------------------------------------------------------


def test_averages_that_do_not_move(make):
    trainer = make(ema_decay=0.5)
    assert AVERAGES in [check.name for check in preflight(trainer, full=True)]
    trainer.ema.step = lambda parameters: None
    assert failed(trainer)[AVERAGES].figure.startswith("0 of ")


def test_averages_that_nobody_sees(make):
    trainer = make(ema_decay=0.5)
    trainer.ema.copy_to = lambda parameters: None
    assert re.search(r"moved, [01] of them are what is evaluated", failed(trainer)[AVERAGES].figure)


# --- the saved LoRA ---------------------------------------------------------------------------------------------------


def test_a_saved_lora_without_its_alpha(make, monkeypatch):
    def save(policy, folder):
        policy.denoiser.peft_config["default"].lora_alpha /= 4
        try:
            return trainable.save_trained(policy, folder)
        finally:
            policy.denoiser.peft_config["default"].lora_alpha *= 4

    monkeypatch.setattr(saved, "save_trained", save)
    check = failed(make())
    assert set(check) == {IMAGES} and "the LoRA changes them by" in check[IMAGES].figure


def test_a_policy_that_is_not_the_pipeline_is_seen(make, monkeypatch):
    trainer = make()
    monkeypatch.setattr(trainer.policy, "decode", lambda latents, real=trainer.policy.decode: real(latents * 1.2))
    assert set(failed(trainer)) == {PLAIN}


def test_a_model_by_name_is_loaded_afresh_to_see_its_lora(make, monkeypatch, tmp_path):
    tiny_sd3().save_pretrained(tmp_path / "model")
    trainer = make(str(tmp_path / "model"))
    check = {check.name: check for check in preflight(trainer, full=True)}[IMAGES]
    assert check.passed and "images of a fresh pipeline differ by" in check.figure
    monkeypatch.setattr(saved, "SECOND_MODEL", 1)
    assert saved._fresh(trainer) is None and saved._fresh(make()) is None


def test_a_lora_that_does_nothing_cannot_prove_that_it_reloads(make, monkeypatch):
    monkeypatch.setattr(saved, "_disturb", lambda trainer: None)
    assert set(failed(make())) == {IMAGES}


def test_all_weights_are_compared_one_by_one(make, monkeypatch):
    names = [check.name for check in preflight(make(lora_r=0), full=True) if check.passed]
    assert "the saved model reloads with the same weights" in names and IMAGES not in names

    def save(policy, folder):
        parameter = next(policy.denoiser.parameters())
        with torch.no_grad():
            parameter.flatten()[0] += 1
            trainable.save_trained(policy, folder)
            parameter.flatten()[0] -= 1

    monkeypatch.setattr(saved, "save_trained", save)
    assert "1 of " in failed(make(lora_r=0))["the saved model reloads with the same weights"].figure


# --- text -------------------------------------------------------------------------------------------------------------


def test_a_policy_that_encodes_its_prompts_again(make, monkeypatch):
    monkeypatch.setattr(prompt_cache, "PROMPT_CACHE_BYTES", 0)
    check = failed(make())
    assert set(check) == {ONCE} and "text_encoder" in check[ONCE].figure


@pytest.mark.parametrize(("limit", "passed"), [(8, True), (1, False)])
def test_a_reward_that_embeds_its_references_again(make, limit, passed):
    memory = TextFeatures(lambda prompts: torch.tensor([[float(len(p))] for p in prompts]), limit=limit)

    def likeness(images, prompts, metadata):
        return images.mean((1, 2, 3)) * memory(prompts)[:, 0]

    trainer = make(rewards=likeness)
    trainer.rewards["likeness"].memory = memory
    trainer.collect(0)
    check = embedded_once(trainer)
    assert check.passed == passed and ("reward likeness" in check.figure) != passed


def test_a_text_encoder_left_on_the_device(make):
    trainer = make()
    assert no_encoder_left(trainer.policy).figure == "the run is on the CPU"
    trainer.policy.device = torch.device("meta")  # stands for an accelerator: weights can be put there, without one
    trainer.policy.pipeline.text_encoder_2.to("meta")
    check = no_encoder_left(trainer.policy)
    assert not check.passed and check.figure.startswith("1 on meta")


class Elsewhere(torch.nn.Module):
    """Notes where it is sent."""

    def __init__(self):
        super().__init__()
        self.where = []

    def to(self, device):
        self.where.append(str(device))
        return self


def test_on_an_accelerator_every_prompt_is_encoded_and_the_encoders_leave(make, monkeypatch):
    trainer, encoder, encoded = make(negative_prompt="blur"), Elsewhere(), []
    policy = trainer.policy
    monkeypatch.setattr(policy, "text_encoders", lambda: {"text_encoder": encoder})
    monkeypatch.setattr(
        policy, "_encode_one", lambda prompt, negative: encoded.append(prompt) or {"x": torch.zeros(1, 2)}
    )
    embed_all(policy, trainer.records, "blur")
    assert encoded == encoder.where == []  # a run on the CPU has nothing to free
    policy._encoded = prompt_cache.PromptCache()
    policy.device = torch.device("meta")
    embed_all(policy, trainer.records, "blur")
    assert encoded == ["blur", "a photo of a red circle", "two blue square"] and encoder.where == ["cpu"]
    policy.encode(["two blue square"])
    assert encoder.where == ["cpu"], "known prompts need no encoder"
    policy.encode(["two blue square", "a new one", "a new one"])
    assert encoded[3:] == ["a new one"] and encoder.where == ["cpu", "meta", "cpu"]


# --- rounding ---------------------------------------------------------------------------------------------------------


def shape_dependent(trainer):
    """Answers as accelerators do, a little differently in another batch shape: as if by a few bits of bf16."""
    real = trainer.policy.predict

    def predict(x, t, cond):
        return real(x, t, cond) * (1 + 2.0**-5 * (len(x) < 4))

    trainer.policy.predict = predict


@pytest.mark.parametrize(
    ("epsilon", "expected"), [(0.2, set()), (1e-5, {"rounding in bf16 stays inside the clip range"})]
)
def test_half_precision_that_the_clip_range_does_not_cover(make, epsilon, expected):
    trainer = make(epsilon=epsilon)
    trainer.args = replace(trainer.args, mixed_precision="bf16")  # accelerate knows one precision per session
    trainer.policy.autocast = lambda: torch.autocast("cpu", torch.bfloat16)
    shape_dependent(trainer)
    found = failed(trainer)
    found.pop(PLAIN)  # this predict is not the pipeline's
    assert set(found) == expected
    assert all("in half batches, limit 1e-06" in check.figure for check in found.values())


# --- nothing is left behind -------------------------------------------------------------------------------------------


def test_the_doctor_takes_everything_back_and_leaves_the_log_of_a_finished_run(make, folder):
    make(max_train_steps=4).train()
    trainer = make(ema_decay=0.5, method="nft", beta=0.1, output_dir=str(folder))
    disturb(trainer)
    before, trained = snapshot(trainer), [p.requires_grad for p in trainer.policy.denoiser.parameters()]
    preflight(trainer, full=True)
    assert same(snapshot(trainer), before)
    assert [p.requires_grad for p in trainer.policy.denoiser.parameters()] == trained
    assert list(trainer.policy.denoiser.peft_config) == ["default"]
    assert [line["step"] for line in events(folder)] == [1, 2, 3, 4]


def test_a_pipeline_of_the_user_is_as_it_was(make):
    pipeline = tiny_sd3()
    before = {name: p.clone() for name, p in pipeline.vae.named_parameters()}
    preflight(make(pipeline), full=True)
    assert all(torch.equal(p, before[name]) for name, p in pipeline.vae.named_parameters())
