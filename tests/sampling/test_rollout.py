"""The loop and its replay: invariants, windows, forks, gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from diffalign.sampling import (
    Policy,
    cps,
    dance_sde,
    ddim,
    encode_prompts,
    flow_schedule,
    flow_sde,
    make_plan,
    ode,
    predict_at,
    progressive_start,
    replay,
    rollout,
    vp_schedule,
    where,
    window,
)
from diffalign.sampling.noise import initial_noise, noise_key, step_noise

S6 = flow_schedule([1, 0.9, 0.75, 0.55, 0.3, 0.1, 0])
PROMPTS = ["a red circle", "a blue square", "a red circle"]
SEEDS = [3, 4, 5]


@pytest.mark.parametrize(
    "build", [lambda s: flow_sde(s, 0.7), lambda s: dance_sde(s, 0.3), lambda s: cps(s, 0.8), ddim]
)
@pytest.mark.parametrize("guidance", [1.0, 4.5])
@pytest.mark.parametrize("storage", [torch.float32, torch.bfloat16])
def test_replay_with_unchanged_weights_has_ratio_exactly_one(toy, build, guidance, storage):
    toy.dtype = storage
    trajectory = rollout(toy, make_plan(build(S6), guidance=guidance), PROMPTS, SEEDS)
    assert len(trajectory.steps) >= 5
    for k in trajectory.steps:
        assert torch.equal(replay(toy, trajectory, k).log_prob, trajectory.log_probs[k])
    assert trajectory.x.dtype == storage


def test_replay_in_another_batch_is_close(toy):
    whole = rollout(toy, make_plan(flow_sde(S6)), PROMPTS, SEEDS)
    single = rollout(toy, make_plan(flow_sde(S6)), PROMPTS[1:2], SEEDS[1:2])
    for k in whole.steps:
        assert float((whole.log_probs[k][1] - single.log_probs[k][0]).abs()) <= 1e-6


def test_changed_weights_change_the_ratio(toy):
    trajectory = rollout(toy, make_plan(flow_sde(S6)), PROMPTS, SEEDS)
    with torch.no_grad():
        toy.net[2].bias += 0.1
    assert float((replay(toy, trajectory, 2).log_prob - trajectory.log_probs[2]).abs().min()) > 1e-5


def test_window_equals_the_ode_before_it_and_only_records_inside(toy):
    mixed = rollout(toy, make_plan(where(window(6, 2, 2), flow_sde(S6), ode(S6)), record=range(6)), PROMPTS, SEEDS)
    plain = rollout(toy, make_plan(ode(S6), record=range(6)), PROMPTS, SEEDS)
    for k in (0, 1, 2):
        assert torch.equal(mixed.states[k], plain.states[k])
    for k in (3, 4, 5, 6):
        assert not torch.equal(mixed.states[k], plain.states[k])
    assert [k for k in range(6) if mixed.log_probs[k] is not None] == [2, 3] == list(mixed.steps)


def test_branches_share_the_prefix_and_differ_after_it(toy):
    table = where(window(6, 2, 1), flow_sde(S6), ode(S6))
    trajectory = rollout(toy, make_plan(table, record=range(6), fork={2: 4}), PROMPTS[:2], SEEDS[:2])
    assert trajectory.batch == 8 and trajectory.parent.tolist() == [0] * 4 + [1] * 4
    assert trajectory.seeds.tolist() == [3] * 4 + [4] * 4
    for k in (0, 1, 2):
        assert torch.equal(trajectory.states[k][:4], trajectory.states[k][:1].expand(4, -1, -1, -1))
    ends = trajectory.x[:4].flatten(1)
    assert float(torch.pdist(ends).min()) > 1e-2
    assert [toy.calls[i] for i in range(6)] == [2, 2, 2, 8, 8, 8], "prefix and forking step are computed once per root"


def test_replay_of_a_shared_step_is_the_replay_of_each_branch(toy):
    trajectory = rollout(toy, make_plan(flow_sde(S6), record=range(6), fork={1: 2, 3: 3}), PROMPTS[:2], SEEDS[:2])
    with torch.no_grad():
        toy.net[2].bias += 0.05
    for k, rows in ((0, 2), (1, 2), (2, 4), (3, 4), (4, 12)):
        toy.calls.clear()
        shared = replay(toy, trajectory, k)
        assert toy.calls == [rows]
        apart = replay(toy, trajectory, torch.full((12,), k))  # one index per sample: nothing is shared
        torch.testing.assert_close(shared.log_prob, apart.log_prob)
        grads = [
            torch.autograd.grad(out.log_prob[2:7].sum(), list(toy.net.parameters()), retain_graph=True)
            for out in (shared, apart)
        ]
        torch.testing.assert_close(*grads)


def test_replay_of_any_selection_of_branches_is_theirs(toy):
    """Halves of a family, other orders, a row twice, and samples that differ in nothing but their first latent."""
    init = torch.randn(3, *toy.latent_shape)
    plan = make_plan(flow_sde(S6), record=range(6), fork={1: 2, 3: 3})
    trajectory = rollout(toy, plan, [PROMPTS[0]] * 3, [5, 5, 5], init=init)
    with torch.no_grad():
        toy.net[2].bias += 0.05
    for k, families in ((0, 3), (1, 3), (2, 6), (4, 10)):
        whole = replay(toy, trajectory, torch.full((18,), k))
        for rows in (torch.arange(9), torch.tensor([17, 0, 7, 7, 3, 12, 1, 9, 16]), torch.tensor([4])):
            part = replay(toy, trajectory.select(rows), k)
            torch.testing.assert_close(part.log_prob, whole.log_prob[rows])
            torch.testing.assert_close(part.mean, whole.mean[rows])
        toy.calls.clear()
        replay(toy, trajectory.select(torch.tensor([17, 0, 7, 7, 3, 12, 1, 9, 16, 4])), k)
        assert toy.calls == [families]


def test_forked_step_without_noise_gives_identical_branches(toy):
    def silent(shape, seeds, branches, step, run_seed):
        return torch.zeros(len(seeds), *shape)

    table = where(window(6, 2, 1), flow_sde(S6), ode(S6))
    trajectory = rollout(toy, make_plan(table, fork={2: 3}), PROMPTS[:1], SEEDS[:1], noise=silent)
    assert torch.equal(trajectory.x, trajectory.x[:1].expand(3, -1, -1, -1))


def test_branching_twice_gives_every_row_its_own_noise(toy):
    trajectory = rollout(toy, make_plan(flow_sde(S6), fork={1: 2, 3: 3}), PROMPTS[:2], SEEDS[:2], branches=[0, 1])
    assert trajectory.batch == 12
    assert len({(s, b) for s, b in zip(trajectory.seeds.tolist(), trajectory.branch.tolist(), strict=True)}) == 12
    assert float(torch.pdist(trajectory.x.flatten(1)).min()) > 1e-2


def test_permuted_steps_give_the_same_loss_and_gradients(toy):
    trajectory = rollout(toy, make_plan(flow_sde(S6), record=range(5)), PROMPTS, SEEDS)
    with torch.no_grad():
        toy.net[2].bias += 0.05

    def gradient(orders):
        toy.zero_grad()
        total = 0.0
        for k in orders:
            out = replay(toy, trajectory, k)
            out.log_prob.sum().backward()
            total += float(out.log_prob.detach().double().sum())
        return total, toy.net[0].weight.grad.clone()

    ordered = gradient(range(5))
    generator = torch.Generator().manual_seed(1)
    orders = torch.stack([torch.randperm(5, generator=generator) for _ in PROMPTS], dim=1)
    shuffled = gradient(list(orders))
    assert ordered[0] == pytest.approx(shuffled[0], abs=1e-5)
    torch.testing.assert_close(ordered[1], shuffled[1], rtol=1e-5, atol=1e-6)


def test_guided_per_sample_steps_match_single_steps(toy):
    plan = make_plan(flow_sde(S6), guidance=[1, 2, 3, 1, 2, 3], record=range(6))
    trajectory = rollout(toy, plan, PROMPTS, SEEDS)
    mixed = replay(toy, trajectory, torch.tensor([0, 4, 5]))
    for row, k in enumerate((0, 4, 5)):
        assert float(mixed.log_prob[row]) == pytest.approx(float(trajectory.log_probs[k][row]), abs=1e-6)


def test_noise_keys():
    shape = (3, 4, 4)
    assert not torch.equal(step_noise(shape, [1], [0], 0, 0), step_noise(shape, [2], [0], 0, 0))
    assert not torch.equal(step_noise(shape, [1], [0], 0, 0), step_noise(shape, [1], [0], 1, 0))
    assert not torch.equal(step_noise(shape, [1], [0], 0, 0), step_noise(shape, [1], [1], 0, 0))
    assert not torch.equal(step_noise(shape, [1], [0], 0, 0), step_noise(shape, [1], [0], 0, 1))
    assert torch.equal(step_noise(shape, [1], [0], 0, 0), step_noise(shape, [1], [0], 0, 0))
    assert torch.equal(step_noise(shape, [7, 1, 9], [0] * 3, 2, 5)[1:2], step_noise(shape, [1], [0], 2, 5))
    assert len({noise_key(a, b, c) for a in range(20) for b in range(20) for c in range(20)}) == 8000
    assert noise_key(1, 2) != noise_key(2, 1)


def test_initial_noise_is_what_diffusers_draws():
    from diffusers.utils.torch_utils import randn_tensor

    generators = [torch.Generator("cpu").manual_seed(s) for s in (11, 12)]
    for dtype in (torch.float32, torch.float16):
        theirs = randn_tensor(
            (2, 3, 8, 8), generator=[torch.Generator("cpu").manual_seed(s) for s in (11, 12)], dtype=dtype
        )
        assert torch.equal(initial_noise((3, 8, 8), [11, 12], dtype), theirs)
    assert generators[0].initial_seed() == 11


def test_prompts_are_encoded_once_each(toy):
    trajectory = rollout(toy, make_plan(ode(S6), guidance=2.0), PROMPTS, SEEDS)
    assert toy.encoded == ["a red circle", "a blue square", ""]
    assert trajectory.prompt_of == PROMPTS
    assert len(toy.calls) == 12 and set(toy.calls) == {3}, "two forwards of one shape per guided step"


class Growth(Policy):
    """x' = (1 + theta) x as the Euler step of a flow: v = theta x / dt."""

    latent_shape, prediction, dtype, device = (1,), "flow", torch.float64, torch.device("cpu")

    def __init__(self, schedule, theta):
        self.theta, self.dt = (
            theta,
            {float(t): float(d) for t, d in zip(schedule.timestep, schedule.sigma.diff(), strict=True)},
        )

    def encode(self, prompts, *, negative=False):
        return {"none": torch.zeros(len(prompts))}

    def predict(self, x, t, cond):
        return self.theta * x / self.dt[float(t[0])]

    def decode(self, latents):
        return latents


@pytest.mark.parametrize(("last", "expected"), [(5, 7.3205), (2, 2.9282), (1, 1.4641)])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_truncated_backpropagation(last, expected, checkpointed):
    schedule = flow_schedule([1, 0.8, 0.6, 0.4, 0.2, 0])
    theta = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    plan = make_plan(ode(schedule), grad=range(5 - last, 5), checkpoint=checkpointed)
    out = rollout(Growth(schedule, theta), plan, ["x"], [0], init=torch.ones(1, 1, dtype=torch.float64))
    (grad,) = torch.autograd.grad(out.images.sum(), theta)
    assert float(grad) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_whole_graph_equals_a_hand_written_loop_and_checkpointing_changes_nothing(toy, guidance):
    def gradient(checkpointed):
        toy.zero_grad()
        plan = make_plan(ode(S6), grad=range(6), guidance=guidance, checkpoint=checkpointed, uncond_grad=True)
        rollout(toy, plan, PROMPTS, SEEDS).images.sum().backward()
        return toy.net[0].weight.grad.clone()

    toy.zero_grad()
    x = initial_noise(toy.latent_shape, SEEDS)
    cond, uncond = toy.encode(PROMPTS), toy.encode([""] * 3)
    for k in range(6):
        t = S6.timestep[k].expand(3)
        v = toy.predict(x, t, cond)
        if guidance != 1:
            u = toy.predict(x, t, uncond)
            v = u + guidance * (v - u)
        x = x + v * float(S6.sigma[k + 1] - S6.sigma[k])
    toy.decode(x).sum().backward()
    torch.testing.assert_close(gradient(False), toy.net[0].weight.grad, rtol=1e-5, atol=1e-7)
    assert torch.equal(gradient(False), gradient(True))


def test_gradient_stays_out_of_steps_without_it(toy):
    plan = make_plan(ode(S6), grad=[])
    assert not rollout(toy, plan, PROMPTS, SEEDS).images.requires_grad
    leaf = initial_noise(toy.latent_shape, SEEDS).requires_grad_()
    images = rollout(toy, make_plan(ode(S6), grad=range(6)), PROMPTS, SEEDS, init=leaf).images
    (grad,) = torch.autograd.grad(images.sum(), leaf)
    assert float(grad.abs().sum()) > 0


def test_unconditional_branch_without_graph_keeps_the_values(toy):
    trajectory = rollout(toy, make_plan(flow_sde(S6), guidance=3.0), PROMPTS, SEEDS)
    grads = {}
    for flag in (False, True):
        plan = make_plan(flow_sde(S6), guidance=3.0, uncond_grad=flag)
        other = rollout(toy, plan, PROMPTS, SEEDS)
        assert torch.equal(other.x, trajectory.x)
        toy.zero_grad()
        replay(toy, other, 1).log_prob.sum().backward()
        grads[flag] = toy.net[0].weight.grad.clone()
    assert not torch.allclose(grads[False], grads[True])


def test_resuming_from_a_stored_state_reaches_the_same_image(toy):
    whole = rollout(toy, make_plan(flow_sde(S6), record=range(6)), PROMPTS, SEEDS)
    rest = rollout(toy, make_plan(flow_sde(S6), start=3), PROMPTS, SEEDS, init=whole.states[3])
    assert torch.equal(rest.images, whole.images)
    part = rollout(toy, make_plan(flow_sde(S6), stop=3), PROMPTS, SEEDS, decode=False)
    assert torch.equal(part.x, whole.states[3]) and part.images is None


def test_deterministic_steps_from_given_latents_need_no_seeds(toy):
    init = torch.randn(3, *toy.latent_shape)
    free = rollout(toy, make_plan(ode(S6)), PROMPTS, init=init)
    assert torch.equal(free.x, rollout(toy, make_plan(ode(S6)), PROMPTS, SEEDS, init=init).x)
    late = where(window(6, 0, 2), flow_sde(S6), ode(S6))
    assert rollout(toy, make_plan(late, start=2), PROMPTS, init=init).seeds.tolist() == [-1] * 3
    for plan, given in ((make_plan(ode(S6)), None), (make_plan(late, start=1), init)):
        with pytest.raises(ValueError, match="give seeds"):
            rollout(toy, plan, PROMPTS, init=given)


def test_the_initial_scale_is_applied_once_and_to_drawn_noise_alone(toy):
    scaled = replace(S6, initial=0.5)
    drawn = rollout(toy, make_plan(ode(scaled)), PROMPTS, SEEDS)
    assert torch.equal(drawn.init_noise, 0.5 * initial_noise(toy.latent_shape, SEEDS))
    given = rollout(toy, make_plan(ode(scaled)), PROMPTS, init=drawn.init_noise)
    assert torch.equal(given.x, drawn.x)


@pytest.mark.parametrize("scale", [0.0, 0.7])
def test_guidance_of_one_or_less_is_the_conditional_branch(toy, scale):
    plain = rollout(toy, make_plan(ode(S6)), PROMPTS, SEEDS)
    low = rollout(toy, make_plan(ode(S6), guidance=scale), PROMPTS, SEEDS)
    assert torch.equal(low.x, plain.x) and low.conditioning.uncond is None
    mixed = make_plan(flow_sde(S6), guidance=[scale, 3, 3, scale, 3, 3], record=range(6))
    trajectory = rollout(toy, mixed, PROMPTS, SEEDS)
    k = torch.tensor([0, 1, 3])
    expected = torch.stack([trajectory.log_probs[int(step)][row] for row, step in enumerate(k)])
    torch.testing.assert_close(replay(toy, trajectory, k).log_prob, expected, rtol=0, atol=1e-6)


def test_offline_predictions_need_no_roll_out(toy):
    plan = make_plan(ode(S6), guidance=2.0)
    trajectory = rollout(toy, plan, PROMPTS, SEEDS)
    conditioning = encode_prompts(toy, PROMPTS)
    assert torch.equal(
        predict_at(toy, plan, conditioning, 2, trajectory.x),
        predict_at(toy, plan, trajectory.conditioning, 2, trajectory.x),
    )
    with pytest.raises(ValueError, match="no negative prompt was encoded"):
        predict_at(toy, plan, encode_prompts(toy, PROMPTS, negative_prompt=None), 2, trajectory.x)
    with pytest.raises(ValueError, match="no prompts"):
        encode_prompts(toy, [])


def test_hook_sees_the_clean_prediction_and_changes_the_step(toy):
    seen = []

    def hook(k, x, x0_hat, output):
        seen.append(k)
        torch.testing.assert_close(x0_hat, x - S6.sigma[k].float() * output)
        return output + 1 if k == 4 else output

    hooked = rollout(toy, make_plan(ode(S6), hook=hook, record=range(6)), PROMPTS, SEEDS)
    plain = rollout(toy, make_plan(ode(S6), record=range(6)), PROMPTS, SEEDS)
    assert seen == list(range(6))
    assert torch.equal(hooked.states[4], plain.states[4]) and not torch.equal(hooked.states[5], plain.states[5])


def test_means_are_kept_on_request(toy):
    trajectory = rollout(toy, make_plan(flow_sde(S6)), PROMPTS, SEEDS, keep_means=True)
    for k in trajectory.steps:
        assert torch.equal(replay(toy, trajectory, k).mean, trajectory.means[k])


def test_window_scheduler():
    starts = [progressive_start(i, 25, 4) for i in (0, 24, 25, 299)]
    assert starts == [0, 0, 1, 11]
    every = {progressive_start(i, 25, 4) for i in range(2000)}
    assert min(every) == 0 and max(every) + 4 == 24, "the window is full and never holds the last step"
    with pytest.raises(ValueError, match="does not fit"):
        progressive_start(0, 4, 4)


def test_refusals(toy):
    with pytest.raises(ValueError, match=r"executes 0\.\.5"):
        make_plan(flow_sde(S6), record=[6])
    with pytest.raises(ValueError, match="do not fit"):
        make_plan(flow_sde(S6), start=3, stop=9)
    with pytest.raises(ValueError, match="does not lie in a schedule of 6"):
        window(6, 5, 2)
    with pytest.raises(ValueError, match="all be the same image"):
        make_plan(ode(S6), fork={1: 2})
    with pytest.raises(ValueError, match="4 entries"):
        make_plan(ode(S6), guidance=[1, 2, 3, 4])
    with pytest.raises(ValueError, match="one seed per prompt"):
        rollout(toy, make_plan(ode(S6)), PROMPTS, [1])
    with pytest.raises(ValueError, match="starts at step 2"):
        rollout(toy, make_plan(ode(S6), start=2), PROMPTS, SEEDS)
    with pytest.raises(ValueError, match="the policy samples"):
        rollout(toy, make_plan(ode(S6)), PROMPTS, SEEDS, init=torch.zeros(3, 1))
    with pytest.raises(ValueError, match="no recorded step"):
        _ = rollout(toy, make_plan(ode(S6)), PROMPTS, SEEDS).old_log_probs
    with pytest.raises(ValueError, match="was not recorded"):
        replay(toy, rollout(toy, make_plan(ode(S6)), PROMPTS, SEEDS), 1)


def test_variance_preserving_rollout_trains_all_steps_but_the_noiseless():
    schedule = vp_schedule([0.1, 0.4, 0.8, 1.0], [800, 500, 200], "epsilon")
    assert make_plan(ddim(schedule, 1.0)).recorded == (0, 1)
