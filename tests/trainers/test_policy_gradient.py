"""The update against gradients taken by hand from the recorded states; advantages, ratios, KL."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from diffalign.sampling import replay
from tests.tiny_pipelines import tiny_sd, tiny_sd3
from tests.trainers.small_runs import DDPO, disturb, events, feedback_of, gap, gradient, redness, same, snapshot

ROUNDING = 2e-5
"""Measured 1e-7 to 4e-6: sums of the same terms in another order."""


def hand_gradient(trainer, batch, coefficient):
    """Gradient of ``sum_ik coefficient(rows, k, log_ratio)_i log N(x_{k+1}; mean, c)_i / K``, by torch's own Normal.

    `coefficient(rows, k, log_ratio)` gives (B,) factors of the log-density's gradient, log_ratio against rollout.
    """
    for micro in batch.mine.values():
        steps = micro.trajectory.steps
        for k in steps:
            out = replay(trainer.policy, micro.trajectory, k)
            normal = torch.distributions.Normal(out.mean, out.std.view(-1, 1, 1, 1))
            log_prob = normal.log_prob(micro.trajectory.states[k + 1]).mean((1, 2, 3))
            log_ratio = (log_prob - micro.trajectory.log_probs[k]).detach()
            (log_prob * coefficient(micro.rows, k, log_ratio)).sum().div(len(steps)).backward()
    found = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in trainer.parameters]
    trainer.optimisation.optimizer.zero_grad()
    return found


def with_rewards(batch, **rewards):
    return dataclasses.replace(batch, rewards={name: torch.tensor(values) for name, values in rewards.items()})


def test_at_ratio_one_the_gradient_is_minus_the_mean_of_advantage_times_score(make):
    trainer = make(scale_rewards="none")
    disturb(trainer)
    batch = trainer.collect(0)
    values = batch.rewards["redness"].view(2, 4)
    advantages = (values - values.mean(1, keepdim=True)).flatten()
    expected = hand_gradient(trainer, batch, lambda rows, k, _: -advantages[rows] / 8)
    assert gap(gradient(trainer, batch), expected) < ROUNDING


@pytest.mark.parametrize(
    ("kind", "factor"),
    [("plain", lambda c: 1.0), ("cps", lambda c: 2 * c * c), ("guard", lambda c: c)],
)
def test_each_ratio_scales_the_score_of_a_step_by_its_own_power_of_the_noise(make, kind, factor):
    trainer = make(ratio=kind, num_inference_steps=4, scale_rewards="none")
    disturb(trainer)
    batch = trainer.collect(0)
    values, noise = batch.rewards["redness"].view(2, 4), batch.plan.dynamics.c.tolist()
    advantages = (values - values.mean(1, keepdim=True)).flatten()
    expected = hand_gradient(trainer, batch, lambda rows, k, _: -advantages[rows] / 8 * factor(noise[k]))
    assert gap(gradient(trainer, batch), expected) < ROUNDING
    assert len({round(c, 4) for c in noise[:3]}) > 1, "steps of equal noise would hide a wrong power"


@pytest.mark.parametrize("kind", ["tempflow", "guard"])
def test_step_weights_have_mean_one_and_follow_noise_or_step_length(make, kind):
    trainer = make(tiny_sd3(shift=3.0), step_weights=kind, num_inference_steps=4, scale_rewards="none")
    disturb(trainer)
    batch = trainer.collect(0)
    values, schedule = batch.rewards["redness"].view(2, 4), batch.plan.dynamics.schedule
    advantages = (values - values.mean(1, keepdim=True)).flatten()
    raw = {"tempflow": batch.plan.dynamics.c, "guard": 1 / (schedule.sigma[:-1] - schedule.sigma[1:])}[kind][:3]
    weights = (raw / raw.mean()).tolist()
    expected = hand_gradient(trainer, batch, lambda rows, k, _: -advantages[rows] / 8 * weights[k])
    assert gap(gradient(trainer, batch), expected) < ROUNDING
    uniform = hand_gradient(trainer, batch, lambda rows, k, _: -advantages[rows] / 8)
    assert gap(expected, uniform) > 1e-3


@pytest.mark.parametrize(("low", "high"), [(1e-5, None), (1e-5, 1.0), (1.0, 1e-5)])
def test_beyond_the_clip_range_a_sample_pulls_only_towards_it(make, low, high):
    trainer = make(scale_rewards="none", epsilon=low, epsilon_high=high)
    batch = trainer.collect(0)
    disturb(trainer, 0.02)
    values = batch.rewards["redness"].view(2, 4)
    advantages = (values - values.mean(1, keepdim=True)).flatten()
    kept = []

    def coefficient(rows, k, log_ratio):
        ratio, advantage = log_ratio.exp(), advantages[rows]
        cut = torch.where(advantage > 0, ratio > 1 + (high or low), ratio < 1 - low)
        kept.extend((~cut).tolist())
        return -advantage * ratio * ~cut / 8

    expected = hand_gradient(trainer, batch, coefficient)
    assert 2 <= sum(kept) <= 14, "both kinds must occur"
    assert gap(gradient(trainer, batch), expected) < 1e-4


def test_samples_without_a_score_leave_numerator_and_denominator(make):
    trainer = make(scale_rewards="none")
    disturb(trainer)
    batch = trainer.collect(0)
    scores = [0.1, math.nan, 0.7, 0.4, 0.9, 0.2, math.nan, math.nan]
    batch = with_rewards(batch, redness=scores)
    values = torch.tensor(scores).view(2, 4)
    advantages = (values - values.nanmean(1, keepdim=True)).flatten().nan_to_num(0.0)
    expected = hand_gradient(trainer, batch, lambda rows, k, _: -advantages[rows] / 5)
    assert gap(gradient(trainer, batch), expected) < ROUNDING


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_an_update_without_any_score_changes_nothing_and_is_counted(make, folder, beta):
    trainer = make(beta=beta, ema_decay=0.5, lr_scheduler="linear", max_train_steps=20)
    folder.mkdir()
    batch = trainer.collect(0)
    trainer.update(trainer.prepare(batch))  # now momentum, weight decay and schedule could move weights alone
    before = snapshot(trainer)
    trainer.update(trainer.prepare(with_rewards(batch, redness=[math.nan] * 8)))
    after = snapshot(trainer)
    assert all(same(after[part], before[part]) for part in ("weights", "ema", "optimisation"))
    assert trainer.state.step == 4 and trainer.state.skipped == 2
    warnings = [line["message"] for line in events(folder, "warning")]
    assert [text.split(":")[0] for text in warnings] == ["step 3", "step 4"]
    assert all("none of its images could be scored (of 8 in the rollout, redness: 8 NaN)" in t for t in warnings)


def brightness(images, prompts, metadata):
    return images.mean((1, 2, 3))


def test_of_two_rewards_a_dead_one_skips_the_sum_and_leaves_rewards_apart(make, folder):
    dead = [math.nan] * 8
    for how, skipped in (("sum_then_normalize", 2), ("normalize_then_sum", 0)):
        trainer = make(name=how, rewards=[redness, brightness], multi_objective_aggregation=how)
        (folder.parent / how).mkdir()
        batch = trainer.collect(0)
        alive = batch.rewards["redness"].tolist()
        trainer.update(trainer.prepare(with_rewards(batch, redness=alive, brightness=dead)))
        assert trainer.state.skipped == skipped, how


def test_a_group_without_spread_contributes_nothing(make):
    trainer = make(scale_rewards="group", per_device_train_batch_size=2)
    disturb(trainer)
    batch = trainer.collect(0)
    mixed = with_rewards(batch, redness=[0.3] * 4 + [1.0, 2.0, 3.0, 6.0])
    advantages = torch.tensor([0, 0, 0, 0, -0.9258, -0.4629, 0, 1.3887])  # unbiased standard deviation
    expected = hand_gradient(trainer, mixed, lambda rows, k, _: -advantages[rows] / 8)
    assert gap(gradient(trainer, mixed), expected) < 1e-4
    assert float(feedback_of(trainer, mixed).zero_variance) == 0.5


def test_equal_rewards_cost_no_model_evaluation(make):
    trainer = make()
    batch = with_rewards(trainer.collect(0), redness=[0.1] * 8)
    trainer.policy.meter.drain()
    assert not any(g.any() for g in gradient(trainer, batch))
    assert trainer.policy.meter.drain() == {}
    feedback = feedback_of(trainer, batch)
    assert not feedback.values.any() and bool(feedback.valid.all()) and float(feedback.zero_variance) == 1


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        ("group", [-0.9258, -0.4629, 0, 1.3887, -0.5, 1.5, -0.5, -0.5]),  # unbiased: 2.1602 and 1
        ("batch", [-1.0415, -0.5207, 0, 1.5622, -0.2604, 0.7811, -0.2604, -0.2604]),  # population, all eight: 1.9203
        ("none", [-2, -1, 0, 3, -0.5, 1.5, -0.5, -0.5]),
    ],
)
def test_rewards_are_divided_as_asked(make, scale, expected):
    trainer = make(scale_rewards=scale)
    batch = with_rewards(trainer.collect(0), redness=[1.0, 2.0, 3.0, 6.0, 0.0, 2.0, 0.0, 0.0])
    found = feedback_of(trainer, batch).values
    assert torch.allclose(found, torch.tensor(expected), atol=2e-4)


def test_advantages_are_clipped(make):
    trainer = make(scale_rewards="none", advantage_clip=0.75)
    batch = with_rewards(trainer.collect(0), redness=[1.0, 2.0, 3.0, 6.0, 0.0, 2.0, 0.0, 0.0])
    assert feedback_of(trainer, batch).values.tolist() == [-0.75, -0.75, 0, 0.75, -0.5, 0.75, -0.5, -0.5]


def green(images, prompts, metadata):
    return images[:, 1].mean((1, 2))


A, B = [1.0, 2.0, 3.0, 6.0, 0.0, 2.0, 1.0, 5.0], [3.0, 9.0, 1.0, 4.0, 2.0, 0.0, 8.0, 7.0]


def two_rewards(make, how, first=None, second=None, **keys):
    keys = {"reward_weights": [1.0, 0.5], "scale_rewards": "group", **keys}
    trainer = make(rewards=[redness, green], multi_objective_aggregation=how, **keys)
    return feedback_of(trainer, with_rewards(trainer.collect(0), redness=first or A, green=second or B))


def test_two_rewards_are_normalised_apart_or_together(make):
    together = two_rewards(make, "sum_then_normalize").values
    apart = two_rewards(make, "normalize_then_sum").values
    assert not torch.allclose(together, apart, atol=1e-2)
    stretched = [100 * value + 7 for value in B]
    assert torch.allclose(two_rewards(make, "normalize_then_sum", second=stretched).values, apart, atol=1e-5)
    assert not torch.allclose(two_rewards(make, "sum_then_normalize", second=stretched).values, together, atol=1e-2)


def test_two_rewards_follow_their_weights(make):
    only = two_rewards(make, "sum_then_normalize", reward_weights=[0.0, 1.0], first=[math.nan] * 8)
    assert torch.allclose(only.values, two_rewards(make, "normalize_then_sum", reward_weights=[0.0, 2.0]).values / 2)
    assert bool(only.valid.all()), "a reward of weight 0 is only logged"


def test_a_sample_that_one_reward_could_not_score(make):
    broken = [math.nan, *A[1:]]
    together, apart = (two_rewards(make, how, first=broken) for how in ("sum_then_normalize", "normalize_then_sum"))
    assert together.valid.tolist() == [False] + [True] * 7 and together.values[0] == 0
    assert bool(apart.valid.all()) and apart.values[0] != 0


def test_running_statistics_take_in_each_roll_out_once(make):
    trainer = make(tiny_sd(), **{**DDPO, "history_size": 6}, num_iterations=2, max_train_steps=4)
    trainer.train()
    assert trainer.total_steps == 4 and trainer.state.batch == 1
    assert {prompt: len(seen) for prompt, seen in trainer.state.method["history"]["sum"].items()} == {
        "a photo of a red circle": 4,
        "two blue square": 4,
    }


def test_running_advantages_compare_a_prompt_with_its_own_past(make):
    trainer = make(tiny_sd(), **{**DDPO, "history_size": 8, "history_min_count": 8})
    batch = trainer.collect(0)
    prompts = [record["prompt"] for record in batch.spec.sample_records]
    early = feedback_of(trainer, with_rewards(batch, redness=[0.0] * 4 + [10.0] * 4)).values
    assert torch.allclose(early.abs(), torch.ones(8), atol=1e-4), "too few rewards: compared with the batch"
    late = feedback_of(trainer, with_rewards(batch, redness=[0.0] * 4 + [10.0] * 4)).values
    assert not late.any(), "each prompt has given nothing but this value"
    assert {p: len(v) for p, v in trainer.state.method["history"]["sum"].items()} == dict.fromkeys(prompts, 8)


def test_running_statistics_of_each_reward_apart(make):
    how = {**DDPO, "multi_objective_aggregation": "normalize_then_sum", "reward_weights": [0.5, 0.0]}
    trainer = make(tiny_sd(), rewards=[redness, green], **how)
    found = feedback_of(trainer, with_rewards(trainer.collect(0), redness=A, green=[math.nan] * 8))
    assert list(trainer.state.method["history"]) == ["redness"] and bool(found.valid.all())
    assert abs(float(found.values.mean())) < 1e-5 and abs(float(found.values.std(correction=0)) - 0.5) < 1e-4


def test_a_history_that_can_never_fill_is_refused(make):
    with pytest.raises(ValueError, match="history_min_count = 9 is never reached with history_size = 8"):
        make(tiny_sd(), **{**DDPO, "history_size": 8, "history_min_count": 9})


def test_velocity_kl_is_for_flow_models(make):
    with pytest.raises(ValueError, match="kl = velocity is for flow models"):
        make(tiny_sd(), **DDPO, kl="velocity", beta=0.1)


def test_a_window_that_only_later_roll_outs_would_miss_is_refused_now(make):
    with pytest.raises(ValueError, match="nothing is left to train"):
        make(num_inference_steps=8, sde_window_size=1, sde_window_range=[0, 8])


@pytest.mark.parametrize("kind", ["dt_scaled", "exact", "velocity"])
@pytest.mark.parametrize("rank", [4, 0], ids=["lora", "full"])
def test_the_kl_term_pulls_towards_the_reference(make, folder, kind, rank):
    def constant(images, prompts, metadata):
        return torch.zeros(len(images))

    keys = {"beta": 1.0, "kl": kind, "lora_r": rank, "learning_rate": 3e-3, "adam_weight_decay": 0.0}
    trainer = make(rewards=constant, **keys, max_train_steps=12)
    disturb(trainer)
    trainer.train()
    kl = [line["kl"] for line in events(folder)]
    assert kl[0] > 0 and sum(kl[-2:]) < 0.5 * sum(kl[:2]), kl


@pytest.mark.parametrize(
    ("kind", "scale"), [("exact", lambda c, dt: 1 / (2 * c * c)), ("dt_scaled", lambda c, dt: dt / (2 * c * c))]
)
def test_the_logged_kl_is_the_distance_of_the_means(make, kind, scale):
    trainer = make(beta=1.0, kl=kind, scale_rewards="none")
    disturb(trainer)
    batch = trainer.collect(0)
    plan, squares = batch.plan, []
    for micro in batch.mine.values():
        for k in micro.trajectory.steps:
            with torch.no_grad():
                own = replay(trainer.policy, micro.trajectory, k).mean
                with trainer.reference.active():
                    reference = replay(trainer.policy, micro.trajectory, k).mean
            dt = float(plan.dynamics.schedule.sigma[k] - plan.dynamics.schedule.sigma[k + 1])
            squares += (((own - reference) ** 2).mean((1, 2, 3)) * scale(float(plan.dynamics.c[k]), dt)).tolist()
    batch, rows = trainer.prepare(batch), torch.arange(8)
    for number in batch.mine:
        for loss in trainer.losses(batch, number, rows):
            loss.backward()
    logged = trainer.metrics(batch, rows)
    assert float(logged["kl"]) == pytest.approx(sum(squares) / len(squares), rel=1e-4)


def test_the_loss_adds_beta_times_kl_and_the_reference_has_no_gradient(make):
    plain, pulled = make(scale_rewards="none"), make(scale_rewards="none", beta=0.3, kl="exact")
    for trainer in (plain, pulled):
        disturb(trainer)
    batches = [trainer.collect(0) for trainer in (plain, pulled)]
    without, with_kl = (gradient(t, b) for t, b in zip((plain, pulled), batches, strict=True))

    total = torch.zeros(())
    for micro in batches[1].mine.values():
        for k in micro.trajectory.steps:
            with torch.no_grad(), pulled.reference.active():
                reference = replay(pulled.policy, micro.trajectory, k).mean
            out = replay(pulled.policy, micro.trajectory, k)
            kl = ((out.mean - reference) ** 2).mean((1, 2, 3)) / (2 * out.std**2)
            total = total + 0.3 * kl.sum() / (8 * len(micro.trajectory.steps))
    grads = torch.autograd.grad(total, pulled.parameters)
    expected = [a + b for a, b in zip(without, grads, strict=True)]
    assert gap(with_kl, expected) < 1e-4
    assert gap(without, expected) > 1e-3


@pytest.mark.parametrize("build", [tiny_sd3, tiny_sd])
def test_the_unconditional_branch_carries_a_graph_on_request(make, build):
    keys = {"guidance_scale": 4.0, **(DDPO if build is tiny_sd else {})}
    found = []
    for flag in (False, True):
        trainer = make(build(), **keys, uncond_grad=flag)
        disturb(trainer)
        batch = trainer.collect(0)
        trainer.policy.meter.drain()
        found.append((batch, gradient(trainer, batch), trainer.policy.meter.drain()))
    (one, cut, few), (two, whole, many) = found
    assert all(torch.equal(one.rewards[name], two.rewards[name]) for name in one.rewards)
    assert gap(cut, whole) > 0.05
    assert many["backward/other"] == 2 * few["backward/other"] and many["forward/other"] == few["forward/other"]


def test_every_step_index_has_its_own_numbers_and_the_whole_is_their_mean(make, folder):
    trainer = make(num_iterations=2, learning_rate=3e-2, epsilon=1e-4, max_train_steps=4)
    trainer.train()
    first, *_, last = events(folder)
    assert first["ratio/mean"] == 1 and first["ratio/std"] == first["dlogp"] == 0
    assert last["dlogp"] > 0 and last["ratio/std"] > 0
    for name in ("ratio/mean", "dlogp", "clip/high", "clip/low"):
        assert last[name] == pytest.approx((last[f"{name}/0"] + last[f"{name}/1"]) / 2, rel=1e-5)
    assert last["clip/high"] + last["clip/low"] > 0
    assert first["images"] == 8 and last["images"] == 0
