"""The loop: results that no batch size changes, faults of rewards and gradients, whole groups, Ctrl-C."""

from __future__ import annotations

import json
import math
import os
import signal

import pytest
import torch

from diffalign.models import trainable_state
from diffalign.rewards import GroupReward
from diffalign.rewards.base import ScoringFailure
from tests.tiny_pipelines import tiny_sd, tiny_sd3
from tests.trainers.small_runs import (
    DDPO,
    distance,
    disturb,
    events,
    feedback_of,
    gap,
    gradient,
    redness,
    same,
    snapshot,
)

# --- nothing but the settings that decide a run changes it ------------------------------------------------------------


@pytest.mark.parametrize(("build", "keys"), [(tiny_sd3, {}), (tiny_sd, DDPO), (tiny_sd3, {"prefix_branches": 2})])
def test_the_batch_size_changes_an_update_by_rounding_alone(make, build, keys):
    if "prefix_branches" in keys:
        keys = {**keys, "num_inference_steps": 4, "sde_window_size": 2, "sde_window_range": [1, 2]}
    # An epsilon near the gradient's size keeps Adam from turning rounding errors of tiny entries into whole steps.
    keys = {**keys, "adam_epsilon": 1e-3, "max_train_steps": 2, "guidance_scale": 2.0, "beta": 0.01}
    found = {}
    for size in (8, 3, 1):
        trainer = make(build(), name=str(size), **keys, per_device_train_batch_size=size)
        start = trainable_state(trainer.policy)
        trainer.train()
        found[size] = trainable_state(trainer.policy)
    assert distance(found[8], start) > 1e-4
    assert distance(found[8], found[3]) < 2e-6 and distance(found[8], found[1]) < 2e-6  # measured <= 3e-7


@pytest.mark.parametrize(("build", "keys"), [(tiny_sd3, {}), (tiny_sd, DDPO), (tiny_sd3, {"lora_r": 0})])
def test_gradient_checkpointing_changes_no_gradient(make, build, keys):
    found = []
    for flag in (False, True):
        trainer = make(build(), **keys, gradient_checkpointing=flag)
        disturb(trainer, 0.02)
        batch = trainer.collect(0)
        assert bool(trainer.policy.denoiser.is_gradient_checkpointing) == flag
        found.append(gradient(trainer, batch))
    assert gap(found[1], found[0]) < 1e-5


def test_all_samples_of_a_roll_out_share_its_window_and_the_next_has_another(make):
    trainer = make(num_inference_steps=6, sde_window_size=2)
    windows = []
    for index in range(6):
        batch = trainer.collect(index)
        steps = {micro.trajectory.steps for micro in batch.mine.values()}
        assert len(batch.mine) == 2 and steps == {batch.plan.recorded}
        windows.append(batch.plan.recorded)
    assert len(set(windows)) > 1 and all(b == a + 1 for a, b in windows)


def test_collecting_changes_nothing_and_is_reproducible(make):
    trainer = make()
    before = snapshot(trainer)
    state = torch.get_rng_state()
    first, again = trainer.collect(3), trainer.collect(3)
    assert same(first.rewards, again.rewards) and same(snapshot(trainer), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert not same(first.rewards, trainer.collect(4).rewards)
    assert not any(v.requires_grad for m in first.mine.values() for v in m.trajectory.states.values())


def test_training_ends_with_the_roll_out_that_reaches_the_last_step(make, folder):
    trainer = make(max_train_steps=5, updates_per_rollout=2, num_iterations=2)
    trainer.train()
    assert trainer.total_steps == trainer.state.step == 8 == len(events(folder))
    assert [line["rollout"] for line in events(folder)] == [0] * 4 + [1] * 4
    assert (folder / "checkpoint-8").is_dir()


def test_more_updates_than_trajectories_are_refused(make):
    with pytest.raises(ValueError, match="updates_per_rollout = 9, but a rollout has only 8 trajectories"):
        make(updates_per_rollout=9)


# --- rewards ----------------------------------------------------------------------------------------------------------


def test_a_reward_that_fails_now_and_then_is_counted_and_left_out(make, folder):
    def moody(images, prompts, metadata):
        values = redness(images, prompts, metadata)
        values[0] = math.nan
        return values

    make(rewards=moody, preflight=True).train()
    line = events(folder)[0]
    assert line["reward/moody/nan"] == 2 and math.isfinite(line["reward/moody/mean"])


def test_a_reward_that_always_fails_is_an_error_before_the_first_step(make, folder):
    def blind(images, prompts, metadata):
        return torch.full((len(images),), math.nan)

    with pytest.raises(ValueError, match=r"(?s)would not learn.*reward blind is finite: 100%"):
        make(rewards=blind, preflight=True).train()
    assert not (folder / "metrics.jsonl").exists() and not list(folder.glob("checkpoint-*"))
    make(preflight=True).train()  # the folder is not taken


def crooked(images, prompts, metadata):
    return images.mean((1, 2))


def broken(images, prompts, metadata):
    raise KeyError("metadata has no colour")


@pytest.mark.parametrize(
    ("reward", "error", "message"),
    [(crooked, ValueError, "returned shape"), (broken, KeyError, "no colour")],
)
def test_a_reward_with_wrong_wiring_stops_the_run_under_its_name(make, folder, reward, error, message):
    with pytest.raises(error, match=message) as caught:
        make(rewards=[redness, reward]).train()
    assert reward.__name__ in str(caught.value) + "".join(caught.value.__notes__)
    assert not list(folder.glob("checkpoint-*"))


def test_a_fault_in_a_later_roll_out_keeps_the_checkpoint_before_it(make, folder):
    calls = []

    def failing(images, prompts, metadata):
        calls.append(1)
        if len(calls) == 3:  # one call per micro-batch, two per rollout
            raise RuntimeError("the judge is gone")
        return redness(images, prompts, metadata)

    with pytest.raises(RuntimeError, match="the judge is gone"):
        make(rewards=failing, max_train_steps=4, checkpointing_steps=2).train()
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-2"]


@pytest.mark.parametrize("size", [3, 8])
def test_a_group_reward_sees_whole_groups_in_global_order(make, size):
    seen = []

    def spread(images, prompts, metadata):
        seen.append((images.clone(), prompts, [record["group_id"] for record in metadata]))
        return images.mean((1, 2, 3)).std()

    group = GroupReward(spread, name="diversity", credit=lambda value, *rest: value(*rest).expand(len(rest[0])))
    trainer = make(rewards=[group, redness], per_device_train_batch_size=size)
    batch = trainer.collect(0)
    assert [ids for *_, ids in seen] == [[0] * 4, [1] * 4]
    assert [prompts for _, prompts, _ in seen] == [[r["prompt"]] * 4 for r in batch.spec.records]
    for row in range(8):  # the pointwise scores are in the same order
        images = seen[row // 4][0]
        assert redness(images, [], [])[row % 4] == pytest.approx(float(batch.rewards["redness"][row]), abs=1e-6)


def test_reward_weights_follow_the_order_in_which_rewards_are_given(make):
    group = GroupReward(lambda images, *_: images.mean(), name="brightness")
    trainer = make(rewards=[group, redness], reward_weights=[0.0, 1.0], scale_rewards="none")
    batch = trainer.collect(0)
    assert list(batch.rewards) == ["brightness", "redness"]
    values = batch.rewards["redness"].view(2, 4)
    assert torch.allclose(
        feedback_of(trainer, batch).values, (values - values.mean(1, keepdim=True)).flatten(), atol=1e-6
    )


# --- gradients that are not finite ------------------------------------------------------------------------------------


def poison(trainer, at, value=math.nan):
    """The first trained tensor gets a gradient of `value` at the given steps."""
    real, name = trainer.losses, next(n for n, p in trainer.policy.denoiser.named_parameters() if p.requires_grad)

    def losses(*args):
        yield from real(*args)
        if trainer.state.step in at:
            yield trainer.parameters[0].sum() * value

    trainer.losses = losses
    return name


@pytest.mark.parametrize("value", [math.nan, math.inf, 3e38])
def test_a_gradient_that_is_not_finite_skips_its_step(make, folder, value):
    trainer = make(max_train_steps=2, updates_per_rollout=1, ema_decay=0.5, lr_warmup_steps=5)
    seen = []
    real = trainer._update

    def watch(*args, **keys):
        seen.append(snapshot_of(trainer))
        real(*args, **keys)

    def snapshot_of(trainer):
        found = snapshot(trainer)
        return json.loads(json.dumps({k: found[k] for k in ("weights", "ema")}, default=lambda t: t.tolist())), (
            float(trainer.optimisation.learning_rate),
            len(trainer.optimisation.optimizer.state),
        )

    trainer._update = watch
    name = poison(trainer, {0}, value)
    trainer.train()
    assert seen[0] == seen[1], "the skipped step left a trace"
    assert trainer.state.skipped_total == 1 and trainer.state.step == 2
    (warning,) = events(folder, "warning")
    assert warning["step"] == 1 and name in warning["message"]
    first, second = events(folder)
    assert first["grad_norm"] is None and second["grad_norm"] > 0
    assert len(trainer.optimisation.optimizer.state) > 0, "the next step is made"


def test_too_many_skipped_steps_stop_the_run_and_name_step_and_tensor(make, folder):
    trainer = make(max_train_steps=8, max_skipped_steps=2)
    name = poison(trainer, range(100))
    with pytest.raises(RuntimeError, match=rf"step 3: skipped, the gradient of {name}.*max_skipped_steps"):
        trainer.train()
    assert [line["step"] for line in events(folder, "warning")] == [1, 2, 3]


def test_the_count_of_skipped_steps_survives_a_resume(make):
    trainer = make(max_train_steps=2)
    poison(trainer, {1})
    trainer.train()
    trainer = make(max_train_steps=4, max_skipped_steps=1)
    name = poison(trainer, {2})
    with pytest.raises(RuntimeError, match=f"step 3.*{name}.*2 steps in a row were skipped"):
        trainer.train("latest")


def test_a_loss_that_is_not_finite_skips_its_step_too(make, folder):
    trainer = make(max_train_steps=2)
    real = trainer.losses

    def losses(*args):
        for loss in real(*args):
            yield loss + (math.inf if trainer.state.step == 0 else 0.0)

    trainer.losses = losses
    trainer.train()
    (warning,) = events(folder, "warning")
    assert warning["message"] == "step 1: skipped, 2 terms of the loss are not finite"
    assert trainer.state.skipped_total == 1 and len(trainer.optimisation.optimizer.state) > 0


# --- a reward that is away for a while --------------------------------------------------------------------------------


def away(calls):
    """Redness; cannot score in the calls with these numbers."""
    seen = []

    def judge(images, prompts, metadata):
        seen.append(1)
        if len(seen) in calls:
            raise ScoringFailure("the judge did not answer in time")
        values = redness(images, prompts, metadata)
        return values / 0 if len(seen) <= 2 else values  # wrong at first: no score is infinite

    return judge


def test_a_reward_away_for_a_while_costs_its_steps_and_no_more(make, folder):
    trainer = make(rewards=away({5, 6, 7, 8, 9, 10}), max_train_steps=8, num_generations=2)
    with pytest.raises(RuntimeError, match="the last 4 steps changed nothing"):
        trainer.train()
    lines = events(folder)
    assert [line["reward/judge/nan"] for line in lines] == [4, 4, 0, 0, 4, 4, 4, 4]
    assert [line["grad_norm"] is None for line in lines] == [True, True, False, False, True, True, True, True]
    assert trainer.state.step == 8 and trainer.state.skipped_total == 6
    assert len(events(folder, "warning")) == 6


def test_a_reward_that_stays_away_ends_the_run_by_name(make, folder):
    trainer = make(rewards=away(range(2, 100)), max_train_steps=50, max_skipped_steps=3)
    with pytest.raises(RuntimeError, match=r"step 4: skipped, none of its images.*judge: 8 NaN.*4 steps in a row"):
        trainer.train()


# --- Ctrl-C and SIGTERM ----------------------------------------------------------------------------------------------


def interrupting(at_call, number=signal.SIGINT):
    calls = []

    def redness_then_interrupt(images, prompts, metadata):
        calls.append(1)
        if len(calls) == at_call:
            os.kill(os.getpid(), number)
        return redness(images, prompts, metadata)

    return redness_then_interrupt


def test_ctrl_c_finishes_the_roll_out_saves_it_and_a_resume_is_the_whole_run(make, folder):
    handler = signal.getsignal(signal.SIGINT)
    make(name="whole", rewards=interrupting(0), max_train_steps=8).train()
    with pytest.raises(KeyboardInterrupt, match="stopped at step 4; resume_from_checkpoint latest goes on"):
        make(rewards=interrupting(3), max_train_steps=8).train()  # in the second rollout
    assert signal.getsignal(signal.SIGINT) is handler
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-4"]
    resumed = make(rewards=interrupting(0), max_train_steps=8)
    resumed.train("latest")
    assert events(folder) == events(folder.parent / "whole")


def test_sigterm_does_the_same_and_exits_with_143(make, folder):
    make(name="whole", rewards=interrupting(0), max_train_steps=8).train()
    with pytest.raises(SystemExit) as caught:
        make(rewards=interrupting(3, signal.SIGTERM), max_train_steps=8).train()
    assert caught.value.code == 143 and "stopped at step 4" in caught.value.text
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-4"]
    make(rewards=interrupting(0), max_train_steps=8).train("latest")
    assert events(folder) == events(folder.parent / "whole")


def test_ctrl_c_during_an_evaluation_loses_nothing(make, folder):
    records = [{"prompt": "a photo of a green cross", "metadata": {"tag": "colors"}}]
    reward = interrupting(3)  # two calls for the first rollout, then the evaluation after it
    with pytest.raises(KeyboardInterrupt, match="stopped at step 2"):
        make(rewards=reward, max_train_steps=8, eval_steps=2, eval_records=records).train()
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-2"]
    assert len(events(folder, "evaluation")) == 1


def test_a_second_ctrl_c_stops_at_once(make, folder):
    def impatient(images, prompts, metadata):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return redness(images, prompts, metadata)

    with pytest.raises(KeyboardInterrupt):
        make(rewards=impatient, max_train_steps=8).train()
    assert not list(folder.glob("*checkpoint*"))
