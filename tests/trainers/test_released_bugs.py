"""Faults of released code that these trainers must not have; each test shows the faulty value beside the right one."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from diffalign.losses import guard_log_ratio, guard_weights, tempflow_weights
from diffalign.sampling import dance_sde, flow_schedule, replay, rollout, shifted_sigmas
from diffalign.trainers import PolicyGradientConfig
from diffalign.trainers.policy_gradient import old_mean
from diffalign.trainers.policy_gradient_plan import full_noise, trained_mask, training_plan, window_start
from tests.tiny_pipelines import tiny_sd3
from tests.trainers.small_runs import disturb, feedback_of, gap, gradient

TEN = flow_schedule(shifted_sigmas(10, 3.0))


def config(**keys) -> PolicyGradientConfig:
    return PolicyGradientConfig(**{"num_inference_steps": 10, **keys})


def weights(args, schedule=TEN, kind=tempflow_weights):
    return kind(full_noise(args, schedule), schedule.sigma.diff(), trained_mask(args, schedule))


def test_a_window_of_one_step_keeps_its_noise_aware_weight():
    """Normalised over the trained step alone every weight is 1, and TempFlow's weighting is gone."""
    one, all_steps = config(sde_window_size=1, step_weights="tempflow"), config(step_weights="tempflow")
    found = weights(one)
    assert torch.equal(found, weights(all_steps))
    noise = full_noise(one, TEN)[:9]
    assert torch.allclose(found[:9], noise / noise.mean()) and found[9] == 0
    faulty = [float(tempflow_weights(noise[k : k + 1], TEN.sigma.diff()[k : k + 1])) for k in range(9)]
    assert faulty == [1.0] * 9 and float(found.max()) > 1.5


def test_the_weight_in_the_gradient_is_that_of_the_step_which_was_drawn(make):
    keys = {"num_inference_steps": 5, "sde_window_size": 1, "prefix_branches": 2, "scale_rewards": "none"}
    for index in range(8):
        gradients = []
        for kind in ("tempflow", "uniform"):
            trainer = make(tiny_sd3(shift=3.0), **keys, step_weights=kind, name=f"{kind}{index}")
            disturb(trainer)
            gradients.append(gradient(trainer, trainer.collect(index)))
        weight = float(trainer_weight(make, keys)[window_start(trainer.args, index)])
        assert gap(gradients[0], [weight * g for g in gradients[1]]) < 1e-4
        if abs(weight - 1) > 0.1:
            return
    raise AssertionError("no drawn step weighs other than 1")


def trainer_weight(make, keys):
    return make(tiny_sd3(shift=3.0), **keys, step_weights="tempflow", name="weights").step_weights


def test_guard_weights_follow_each_sample_s_own_step(make):
    """Flow-Factory broadcasts (B, 1, 1) x (B): every sample then gets every step's weight."""
    keys = {"ratio": "guard", "step_weights": "guard", "num_inference_steps": 5, "scale_rewards": "none"}
    trainer = make(tiny_sd3(shift=3.0), **keys, timestep_selection="random", timestep_fraction=0.5)
    disturb(trainer)
    batch = trainer.collect(0)
    found = gradient(trainer, batch)
    schedule = batch.plan.dynamics.schedule
    length = -schedule.sigma.diff()[:4]
    weight = (1 / length) / (1 / length).mean()
    values = batch.rewards["redness"].view(2, 4)
    advantages = (values - values.mean(1, keepdim=True)).flatten()
    faulty = torch.zeros(())
    for micro in batch.mine.values():
        for k in trainer._steps(batch, micro):
            assert len(k.unique()) > 1, "samples must stand at different steps"
            out = replay(trainer.policy, micro.trajectory, k)
            noise = torch.stack([micro.trajectory.states[int(s) + 1][i] for i, s in enumerate(k)])
            old = torch.stack([micro.trajectory.means[int(s)][i] for i, s in enumerate(k)])
            drift = ((noise - old) * (out.mean - old)).mean((1, 2, 3)) / out.std
            (-weight[k].float() * advantages[micro.rows] * drift).sum().div(8 * 2).backward(retain_graph=True)
            faulty = faulty + (weight[k].float().view(-1, 1, 1) * (-advantages[micro.rows] * drift)).sum() / (8 * 2)
    expected = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in trainer.parameters]
    wrong = torch.autograd.grad(faulty, trainer.parameters)
    assert gap(found, expected) < 1e-4
    assert gap(list(wrong), expected) > 0.1


def test_guard_weights_are_one_over_the_length_of_the_step():
    """Flow-Factory leaves the 1 / |dt| out."""
    found = weights(config(step_weights="guard"), kind=guard_weights)
    lengths = -TEN.sigma.diff()[:9]
    assert torch.allclose(found[:9] * lengths, (found[0] * lengths[0]).expand(9))
    assert float(found.max() / found[found > 0].min()) > 2


def test_guard_without_the_means_of_the_roll_out_is_refused(make):
    trainer = make(ratio="guard")
    kept = trainer.collect(0)
    micro = next(iter(kept.mine.values()))
    bare = dataclasses.replace(micro.trajectory, means={})
    with pytest.raises(ValueError, match="the means of the steps .0. were not kept"):
        old_mean(bare, 0)
    with pytest.raises(ValueError, match="keep_means = True"):
        old_mean(bare, torch.tensor([0, 1]))
    out = replay(trainer.policy, bare, 0)
    with pytest.raises(ValueError, match="ratio = guard and trust_region = kl_mask compare with them"):
        trainer._log_ratio(out, bare, 0)


def test_the_log_prob_of_dance_s_step_has_its_normaliser(make):
    """MixGRPO's dance_grpo_step loses -log c - log(2 pi) / 2: ratios survive, a reported log-prob does not."""
    trainer = make(sde_type="dance_sde", noise_level=0.3)
    micro = next(iter(trainer.collect(0).mine.values()))
    for k, log_prob in micro.trajectory.log_probs.items():
        out = replay(trainer.policy, micro.trajectory, k)
        state = micro.trajectory.states[k + 1]
        normal = torch.distributions.Normal(out.mean, out.std.view(-1, 1, 1, 1)).log_prob(state).mean((1, 2, 3))
        assert torch.allclose(log_prob, normal, atol=1e-5)
        lost = -((state - out.mean) ** 2).mean((1, 2, 3)) / (2 * out.std**2)
        assert float((log_prob - lost.detach()).abs().min()) > 0.1


@pytest.mark.parametrize("schedule", ["progressive", "decay", "exp_decay", "random"])
def test_every_window_trains_and_none_holds_the_last_step(schedule):
    """Released MixGRPO stands at l = T - 2 for 25 iterations with nothing stochastic."""
    args = config(sde_window_size=3, sde_window_schedule=schedule, sde_window_every=4)
    for index in range(120):
        plan = training_plan(args, TEN, window_start(args, index))
        assert len(plan.recorded) == 3 and 9 not in plan.recorded


def test_flash_ends_on_an_image_at_every_position():
    """Released Flash with one step after the window never reaches sigma 0."""
    args = config(sde_window_size=2, sde_window_schedule="progressive", ode_solver="dpmpp2m", post_window_fraction=0.1)
    for start in args.window_starts():
        table = training_plan(args, TEN, start).dynamics
        assert table.schedule.sigma[-1] == 0 and table.num_steps == start + 2 + 1


def test_the_edit_filter_drops_groups_that_are_good_and_uniform_only(make):
    """UniWorld-V2's code drops groups that are good or uniform; its text says both. Each is a setting."""
    groups = [0.95, 0.94, 0.96, 0.95, 0.50, 0.51, 0.49, 0.50, 0.2, 0.9, 0.5, 0.4, 1.0, 1.0, 0.7, 1.0]
    kept = {}
    for kind in ("none", "varied", "not_saturated", "unsolved_and_varied"):
        trainer = make(group_filter=kind, prompts_per_rollout=4, records=[f"prompt {i}" for i in range(4)], name=kind)
        batch = trainer.collect(0)
        feedback = feedback_of(trainer, dataclasses.replace(batch, rewards={"redness": torch.tensor(groups)}))
        rows = feedback.valid.view(4, 4)
        assert bool((rows == rows[:, :1]).all()) and not feedback.values[~feedback.valid].any()
        kept[kind] = rows[:, 0].tolist()
    assert kept["none"] == kept["varied"] == [True] * 4
    assert kept["not_saturated"] == [False, True, True, True]
    assert kept["unsolved_and_varied"] == [False, False, True, False]


def test_branches_of_one_initial_noise_are_compared_with_each_other_alone(make):
    keys = {"sde_window_size": 1, "prefix_branches": 2, "scale_rewards": "none"}
    rewards = [1.0, 3.0, 10.0, 14.0, 0.0, 0.0, 5.0, 6.0]
    found = {}
    for group in ("seed", "prompt"):
        trainer = make(**keys, group_by=group, name=group)
        batch = dataclasses.replace(trainer.collect(0), rewards={"redness": torch.tensor(rewards)})
        for micro in batch.mine.values():
            pairs = micro.trajectory.init_noise.view(-1, 2, *micro.trajectory.init_noise.shape[1:])
            assert torch.equal(pairs[:, 0], pairs[:, 1]), "siblings stand next to each other"
        found[group] = feedback_of(trainer, batch)
    assert found["seed"].values.tolist() == [-1, 1, -2, 2, 0, 0, -0.5, 0.5]
    assert float(found["seed"].zero_variance) == 0.25
    assert found["prompt"].values.tolist() == [-5, -4, 3, 5, -2.75, -2.75, 2.25, 3.25]


def test_steps_drawn_for_each_sample_give_the_gradient_of_their_terms(make):
    """All steps in random order are all steps; half of them are half of the terms, over their own number."""
    ordered = make(num_inference_steps=5, scale_rewards="none", name="ordered")
    shuffled = make(num_inference_steps=5, scale_rewards="none", timestep_selection="random", name="shuffled")
    for trainer in (ordered, shuffled):
        disturb(trainer)
    batches = [t.collect(0) for t in (ordered, shuffled)]
    assert gap(gradient(shuffled, batches[1]), gradient(ordered, batches[0])) < 1e-4
    micro = next(iter(batches[1].mine.values()))
    order = torch.stack(shuffled._steps(batches[1], micro), 1)
    assert torch.equal(order.sort(1).values, torch.arange(4).expand(4, 4)) and len(set(map(tuple, order.tolist()))) > 1


def test_each_roll_out_draws_steps_anew(make):
    trainer = make(num_inference_steps=5, timestep_selection="random", timestep_fraction=0.5)
    batch = trainer.collect(0)
    micro = next(iter(batch.mine.values()))
    first = torch.stack(trainer._steps(batch, micro), 1)
    assert first.shape == (4, 2)
    trainer.state.batch = 1
    assert not torch.equal(torch.stack(trainer._steps(batch, micro), 1), first)


def test_a_masked_step_is_counted_and_has_no_gradient(make):
    trainer = make(trust_region="kl_mask", kl_limit=0.0, scale_rewards="none", updates_per_rollout=1)
    batch = trainer.collect(0)
    disturb(trainer, 0.05)
    batch, rows = trainer.prepare(batch), torch.arange(8)
    total = torch.zeros(())
    masked = []
    for number, micro in batch.mine.items():
        for loss in trainer.losses(batch, number, rows):
            loss.backward()
        for k in micro.trajectory.steps:
            out = replay(trainer.policy, micro.trajectory, k)
            log_ratio = out.log_prob - micro.trajectory.log_probs[k]
            advantage = batch.feedback.values[micro.rows]
            out_of_region = (advantage * log_ratio.detach() > 0) & (advantage != 0)
            masked += out_of_region.tolist()
            total = total + torch.where(out_of_region, 0, -advantage * log_ratio.exp()).sum() / (8 * 2)
    found = [p.grad.clone() for p in trainer.parameters]
    assert 0 < sum(masked) < len(masked)
    assert gap(found, list(torch.autograd.grad(total, trainer.parameters))) < 1e-4
    assert float(trainer.metrics(batch, rows)["trust/masked"]) == pytest.approx(sum(masked) / len(masked))


def test_guard_centres_what_the_plain_ratio_drifts():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4000, 64, generator=generator)
    old, new = torch.zeros_like(noise), torch.full_like(noise, 0.02)
    found = guard_log_ratio(old + 0.2 * noise, new, old, 0.2)
    assert abs(float(found.mean())) < 4 * float(found.std()) / 4000**0.5


def test_dance_and_flow_noise_leave_the_last_state_clean(make):
    """Family A leaves noise on the final image when its last step is stochastic; by default it is not."""
    for last, clean in ((False, True), (True, False)):
        trainer = make(sde_type="dance_sde", noise_level=0.3, sde_last_step=last, name=str(last))
        plan = trainer.plan(0)
        out = rollout(trainer.policy, plan, ["a photo of a red circle"], [0])
        assert torch.allclose(out.x, out.x0_hat, atol=1e-5) is clean
    assert dance_sde(TEN).c[-1] > 0
