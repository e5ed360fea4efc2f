"""Each check fails on a run broken on purpose, all pass on a sound one, and none leaves a trace."""

from __future__ import annotations

import math

import pytest
import torch

from diffalign.trainers import preflight
from tests.tiny_pipelines import tiny_sd, tiny_sd3
from tests.trainers.small_runs import DDPO, disturb, events, redness, same, snapshot


def failed(trainer, full=True):
    return {check.name for check in preflight(trainer, full=full) if not check.passed}


@pytest.mark.parametrize(
    ("build", "keys"),
    [
        (tiny_sd3, {}),
        (tiny_sd3, {"beta": 0.1, "guidance_scale": 3.0, "ratio": "guard", "lora_r": 0}),
        (tiny_sd3, {"sde_window_size": 1, "prefix_branches": 2, "lr_warmup_steps": 50}),
        (tiny_sd, DDPO),
        (tiny_sd, {**DDPO, "num_generations": 1, "prompts_per_rollout": 8, "guidance_scale": 2.0}),
    ],
)
def test_a_sound_run_passes(make, build, keys):
    checks = preflight(make(build(), **keys), full=True)
    assert [check for check in checks if not check.passed] == []
    names = [check.name for check in checks]
    assert len(set(names)) == len(names)
    assert all(check.figure and check.advice for check in checks)
    assert ("KL has a gradient" in names) == ("beta" in keys)


def test_what_is_looked_at(make):
    cheap = [check.name for check in preflight(make(), full=False)]
    assert cheap == [
        "trainable parameters",
        "reward redness is finite",
        "reward redness differs within groups",
        "advantages have a usable size",
        "no dropout in updates",
        "ratio is 1 at step 0",
        "ratio is 1 at step 1",
        "rounding in fp32 stays inside the clip range",
    ]
    more = [check.name for check in preflight(make(), full=True)]
    assert more == [
        *cheap,
        "reward redness sees noise",
        "prompts and references are embedded once",
        "no text encoder is left on the device",
        "trainable parameters move",
        "resume changes the run and restores it",
        "a plain pipeline call equals the rollout",
        "the saved LoRA reloads to the same images",
    ]


def constant(images, prompts, metadata):
    return torch.zeros(len(images))


def blind(images, prompts, metadata):
    return torch.full((len(images),), math.nan)


def positional(images, prompts, metadata):
    return torch.arange(float(len(images)))


RATIOS = {"ratio is 1 at step 0", "ratio is 1 at step 1", "rounding in fp32 stays inside the clip range"}
SPREAD, MOVE = "reward {} differs within groups", "trainable parameters move"


@pytest.mark.parametrize(
    ("reward", "expected"),
    [
        (constant, {SPREAD, "reward {} sees noise", MOVE}),
        (blind, {"reward {} is finite", SPREAD, "reward {} sees noise", MOVE}),
        (positional, {"reward {} sees noise"}),
    ],
)
def test_a_reward_that_cannot_teach_is_seen(make, reward, expected):
    assert failed(make(rewards=reward)) == {name.format(reward.__name__) for name in expected}


def test_spread_between_prompts_alone_teaches_no_group_but_a_history(make):
    def by_prompt(images, prompts, metadata):
        return torch.tensor([float(len(prompt)) for prompt in prompts])

    assert SPREAD.format("by_prompt") in failed(make(rewards=by_prompt), full=False)
    assert failed(make(tiny_sd(), rewards=by_prompt, **DDPO), full=False) == set()


def test_one_varied_group_is_enough(make):
    def one_group(images, prompts, metadata):
        return torch.where(torch.tensor(["red" in p for p in prompts]), redness(images, prompts, metadata), 0.5)

    assert failed(make(rewards=one_group)) == set()


def test_a_reward_of_weight_zero_need_not_teach(make):
    assert failed(make(rewards=[redness, constant], reward_weights=[1.0, 0.0])) == set()
    assert failed(make(rewards=[redness, constant], reward_weights=[1.0, 0.1]), full=False) == {
        SPREAD.format("constant")
    }


def test_dropout_in_updates_is_seen_though_a_fresh_lora_hides_it(make):
    assert failed(make(lora_dropout=0.5)) == {"no dropout in updates"}
    trainer = make(lora_dropout=0.5)
    disturb(trainer, 0.5)
    assert failed(trainer, full=False) == {"no dropout in updates", *RATIOS}


def test_a_model_that_answers_differently_the_second_time_is_seen(make):
    trainer = make()
    real, generator = trainer.policy.predict, torch.Generator().manual_seed(0)

    def noisy(x, t, cond):
        out = real(x, t, cond)
        return out + 0.05 * torch.randn(out.shape, generator=generator)

    trainer.policy.predict = noisy
    assert failed(trainer) == {
        *RATIOS, "a plain pipeline call equals the rollout", "the saved LoRA reloads to the same images"
    }  # fmt: skip


def test_rounding_below_a_tenth_of_the_clip_range_passes(make):
    trainer = make(epsilon=1e-2)
    real = trainer._log_ratio
    for offset, names in ((5e-4, set()), (2e-3, RATIOS)):
        trainer._log_ratio = lambda *args, offset=offset: real(*args) + offset
        assert failed(trainer, full=False) == names


def test_a_learning_rate_of_nothing_is_seen_and_warm_up_is_not_that(make):
    assert failed(make(learning_rate=1e-46)) == {MOVE}
    assert failed(make(lr_warmup_steps=100)) == set()


def test_weights_that_nothing_reaches_are_seen(make):
    trainer = make()
    real = trainer.policy.predict
    trainer.policy.predict = lambda x, t, cond: real(x, t, cond).detach().requires_grad_()
    assert failed(trainer) == {MOVE}


def test_a_kl_without_gradient_is_seen(make):
    trainer = make(beta=0.1)
    real = trainer._kl
    trainer._kl = lambda *args: real(*args).detach()
    assert failed(trainer, full=False) == {"KL has a gradient"}


@pytest.mark.parametrize(("build", "keys"), [(tiny_sd3, {"beta": 0.1, "ema_decay": 0.5}), (tiny_sd, DDPO)])
def test_it_leaves_no_trace(make, folder, build, keys):
    checked, plain = (make(build(), name=name, **keys, lr_warmup_steps=3) for name in ("checked", "plain"))
    before, state = snapshot(checked), torch.get_rng_state()
    grads = [p.grad for p in checked.parameters]
    preflight(checked, full=True)
    assert same(snapshot(checked), before) and torch.equal(torch.get_rng_state(), state)
    assert grads == [None] * len(grads) == [p.grad for p in checked.parameters]
    assert checked.policy.meter.counts == {} and checked.clock.seconds == {}
    assert not (folder.parent / "checked").exists()
    for trainer in (checked, plain):
        trainer.train()
    assert same(snapshot(checked), snapshot(plain))


def test_training_starts_only_when_the_cheap_checks_pass(make, folder):
    keys = {"rewards": [redness, constant], "preflight": True}
    trainer = make(**keys)
    with pytest.raises(ValueError) as caught:
        trainer.train()
    text = str(caught.value)
    assert text.count("\n- ") == 1 and "0 of 2 groups have reward spread" in text and "softer reward" in text
    assert trainer.state.step == 0 and not (folder / "metrics.jsonl").exists()
    make(**{**keys, "preflight": False}).train()
    assert (folder / "checkpoint-2").is_dir()


def test_a_run_that_cannot_learn_stops_before_the_long_evaluation(make, folder):
    records = [{"prompt": "a photo of a green cross", "metadata": {"tag": "colors"}}]
    with pytest.raises(ValueError, match="would not learn"):
        make(rewards=constant, preflight=True, compare=True, eval_records=records).train()
    assert not (folder / "evaluation").exists()


def test_the_half_batches_of_an_odd_number_of_branched_groups_are_replayed(make, folder):
    keys = {"num_inference_steps": 5, "sde_window_size": 1, "sde_window_range": [1, 2], "prefix_branches": 4}
    trainer = make(
        **keys, num_generations=4, prompts_per_rollout=3, updates_per_rollout=1, per_device_train_batch_size=12,
        max_train_steps=1, preflight=True,
    )  # fmt: skip
    trainer.train()
    (line,) = events(folder)
    assert line["grad_norm"] > 0
