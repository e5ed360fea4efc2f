"""The one sampling loop, and the evaluation of a recorded step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from diffalign.sampling.conditioning import encode_prompts, predict_at
from diffalign.sampling.noise import initial_noise, step_noise
from diffalign.sampling.plan import StepPlan
from diffalign.sampling.policy import Policy
from diffalign.sampling.step import StepOut
from diffalign.sampling.trajectory import Trajectory

Noise = Callable[[Sequence[int], Sequence[int], Sequence[int], int, int], Tensor]
"""(latent shape, seeds, branches, step, run seed) -> (B, *latent_shape) standard normal."""


def rollout(
    policy: Policy,
    plan: StepPlan,
    prompts: Sequence[str],
    seeds: Sequence[int] | None = None,
    *,
    run_seed: int = 0,
    branches: Sequence[int] | None = None,
    negative_prompt: str = "",
    init: Tensor | None = None,
    noise: Noise = step_noise,
    keep_means: bool = False,
    decode: bool = True,
) -> Trajectory:
    """Sample one batch.

    Args:
        policy: the model.
        plan: what to do at each step.
        prompts: one per sample; repeated prompts are encoded once.
        seeds: one per sample; x_T of seed s is what diffusers draws from a CPU generator seeded with s. Not needed with
            init and a deterministic plan.
        run_seed: further key of the step noise.
        branches: further key per sample, so that samples with one x_T differ; default 0.
        negative_prompt: text of the unconditional branch ("" is the trained null prompt of most models).
        init: (B, *latent_shape) latent at plan.start instead of the seeds' x_T (a leaf for noise optimisation, a
            stored state to resume from).
        noise: where step noise comes from.
        keep_means: keep the mean of each recorded step.
        decode: decode the final latents to images.

    Raises:
        ValueError: prompts and seeds of different lengths, seeds missing where noise is drawn, a latent of another
            shape, plan.start > 0 without init.
    """
    trajectory = _begin(policy, plan, prompts, seeds, branches, negative_prompt, init)
    previous: Tensor | None = None
    for k in plan.steps:
        with torch.set_grad_enabled(plan.grad[k]):
            output = predict_at(policy, plan, trajectory.conditioning, k, trajectory.x)  # copies share it
            output = _copies(output, plan.fork[k])
            previous = None if previous is None else _copies(previous, plan.fork[k])
            trajectory = trajectory.forked(plan.fork[k])
            out = _advance(policy, trajectory, k, output, noise, run_seed, previous)
        trajectory = _note(trajectory, k, out, keep_means)
        previous = out.x0_hat
    if decode:
        with torch.set_grad_enabled(any(plan.grad)):
            trajectory = replace(trajectory, images=policy.decode(trajectory.x))
    return trajectory


def replay(policy: Policy, trajectory: Trajectory, k: int | Tensor) -> StepOut:
    """Evaluate a recorded step with the policy's present weights, under the caller's grad mode.

    Samples forked at or after step k share one prediction, here as in the rollout.

    Args:
        policy: the model.
        trajectory: a rollout; states before and after step k must have been recorded.
        k: step index, or (B,) long tensor with one recorded index per sample.

    Returns:
        StepOut whose log_prob belongs to the recorded outcome.
    """
    plan, conditioning = trajectory.plan, trajectory.conditioning
    if not isinstance(k, int):
        x, next_x = _gather(trajectory, k), _gather(trajectory, k + 1)
        return plan.dynamics.step(predict_at(policy, plan, conditioning, k, x), k, x, next_x)
    x, next_x = _state(trajectory, k), _state(trajectory, k + 1)
    rows, family = (index.to(x.device) for index in trajectory.ancestors(k))
    output = predict_at(policy, plan, conditioning.select(rows), k, x[rows])[family]
    return plan.dynamics.step(output, k, x, next_x)


def _begin(
    policy: Policy,
    plan: StepPlan,
    prompts: Sequence[str],
    seeds: Sequence[int] | None,
    branches: Sequence[int] | None,
    negative_prompt: str,
    init: Tensor | None,
) -> Trajectory:
    _check(policy, plan, prompts, seeds, init)
    seeds = [-1] * len(prompts) if seeds is None else list(seeds)
    if init is None:
        x = initial_noise(policy.latent_shape, seeds, policy.dtype) * plan.dynamics.schedule.initial
    else:
        x = init
    guided = any(policy.needs_negative(plan.guidance[k]) for k in plan.steps)
    return Trajectory(
        plan,
        conditioning=encode_prompts(policy, prompts, negative_prompt=negative_prompt if guided else None),
        seeds=torch.tensor(seeds, dtype=torch.long),
        branch=torch.tensor(list(branches) if branches is not None else [0] * len(prompts)),
        parent=torch.full((len(prompts),), -1),
        origin=torch.arange(len(prompts)),
        init_noise=x.detach().to(policy.device),
        x=x.to(policy.device),
    )


def _check(
    policy: Policy, plan: StepPlan, prompts: Sequence[str], seeds: Sequence[int] | None, init: Tensor | None
) -> None:
    if seeds is None and (init is None or bool((plan.dynamics.c[plan.start : plan.stop] > 0).any())):
        raise ValueError("give seeds: x_T or the noise of a stochastic step is drawn from them")
    if not prompts or (seeds is not None and len(prompts) != len(seeds)):
        count = 0 if seeds is None else len(seeds)
        raise ValueError(f"got {len(prompts)} prompts and {count} seeds; one seed per prompt, at least one")
    if plan.start > 0 and init is None:
        raise ValueError(f"the plan starts at step {plan.start}: give the latents of that step as init")
    shape = (len(prompts), *policy.latent_shape)
    if init is not None and tuple(init.shape) != shape:
        raise ValueError(f"init has shape {tuple(init.shape)}, the policy samples {shape}")


def _copies(x: Tensor, copies: int) -> Tensor:
    return x if copies == 1 else x.repeat_interleave(copies, dim=0)


def _advance(
    policy: Policy,
    trajectory: Trajectory,
    k: int,
    output: Tensor,
    noise: Noise,
    run_seed: int,
    previous: Tensor | None,
) -> StepOut:
    plan, x = trajectory.plan, trajectory.x
    fresh = None
    if bool(plan.dynamics.c[k] > 0):
        keys = trajectory.seeds.tolist(), trajectory.branch.tolist()
        fresh = noise(policy.latent_shape, *keys, k, run_seed).to(x.device)
    return plan.dynamics.step(output, k, x, noise=fresh, x0_prev=previous, reparam=plan.grad[k])


def _note(trajectory: Trajectory, k: int, out: StepOut, keep_means: bool) -> Trajectory:
    """The trajectory after step k; recorded tensors carry no graph."""
    states, log_probs, means = dict(trajectory.states), dict(trajectory.log_probs), dict(trajectory.means)
    if trajectory.plan.record[k]:
        states[k], states[k + 1] = trajectory.x.detach(), out.next_x.detach()
        log_probs[k] = None if out.log_prob is None else out.log_prob.detach()
        if keep_means:
            means[k] = out.mean.detach()
    return replace(trajectory, x=out.next_x, x0_hat=out.x0_hat, states=states, log_probs=log_probs, means=means)


def _state(trajectory: Trajectory, k: int) -> Tensor:
    if k not in trajectory.states:
        raise ValueError(f"step {k} was not recorded; recorded states: {sorted(trajectory.states)}")
    return trajectory.states[k]


def _gather(trajectory: Trajectory, k: Tensor) -> Tensor:
    return torch.stack([_state(trajectory, int(step))[row] for row, step in enumerate(k.tolist())])
